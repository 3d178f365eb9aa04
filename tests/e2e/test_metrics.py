"""What Prometheus sees."""

import pytest

from harness import MiB, Signed, parse_metrics, payload, run


def test_the_text_is_well_formed_and_every_family_is_explained(server, s3, kms):
    text = server.admin("/metrics")[1]
    samples = list(parse_metrics(text))
    assert len(samples) == sum(1 for line in text.splitlines() if line and not line.startswith("#"))
    types = {line.split()[2]: line.split()[3] for line in text.splitlines() if line.startswith("# TYPE")}
    helps = {line.split()[2] for line in text.splitlines() if line.startswith("# HELP")}
    for name, _, _ in samples:
        family = next((f for f in (name, name.removesuffix("_bucket"), name.removesuffix("_sum"), name.removesuffix("_count")) if f in types), None)
        assert family and family in helps, name
    for family, kind in types.items():
        assert family.startswith(("sealgate_", "process_")), family
        assert kind != "counter" or family.endswith("_total"), family


def delta(server, name, **labels):
    before = server.metric(name, **labels)
    return lambda: server.metric(name, **labels) - before


def test_objects_are_counted(server, s3, bucket):
    put = delta(server, "sealgate_requests_total", front="s3", operation="PutObject", outcome="ok")
    get = delta(server, "sealgate_requests_total", front="s3", operation="GetObject")
    errors = delta(server, "sealgate_errors_total", front="s3", operation="GetObject", fault="client")
    bytes_in = delta(server, "sealgate_bytes_total", front="s3", operation="PutObject", direction="in")
    bytes_out = delta(server, "sealgate_bytes_total", front="s3", operation="GetObject", direction="out")
    latency = delta(server, "sealgate_request_duration_seconds_count", front="s3", operation="PutObject")
    body = payload(MiB)
    for n in range(3):
        s3.put_object(Bucket=bucket, Key=f"k{n}", Body=body)
        assert s3.get_object(Bucket=bucket, Key=f"k{n}")["Body"].read() == body
    with pytest.raises(s3.exceptions.ClientError):
        s3.get_object(Bucket=bucket, Key="absent")
    s3.list_buckets()
    assert (put(), get(), errors(), latency()) == (3, 4, 1, 3)
    assert 3 * MiB <= bytes_in() < 3.2 * MiB
    assert 3 * MiB <= bytes_out() < 3.01 * MiB


def test_keys_are_counted_by_who_asked(server, s3, kms, bucket):
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    encrypt = delta(server, "sealgate_kms_requests_total", operation="Encrypt", caller="api")
    ok = delta(server, "sealgate_kms_requests_total", operation="Encrypt", caller="api", outcome="Success")
    from_s3 = delta(server, "sealgate_kms_requests_total", operation="GenerateDataKey", caller="s3")
    data_keys = delta(server, "sealgate_kms_requests_total", operation="GenerateDataKeyWithoutPlaintext", caller="volume")
    opened = delta(server, "sealgate_kms_requests_total", operation="Decrypt", caller="volume")
    kms.encrypt(KeyId=key, Plaintext=b"x")
    with pytest.raises(kms.exceptions.ClientError):
        kms.encrypt(KeyId="alias/absent", Plaintext=b"x")
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ServerSideEncryption="aws:kms", SSEKMSKeyId=key)
    assert (ok(), from_s3(), data_keys()) == (1, 1, 0)
    assert encrypt() in (1, 2)
    volume = server.volume(KmsKeyId=key)
    assert data_keys() == 1
    before = opened()
    for attachments in (1, 2):
        run("nbdinfo", server.uri(volume))
        assert (data_keys(), opened() - before) == (1, attachments), "one Decrypt an attachment"


def test_volumes_are_counted(server):
    volume = server.volume()
    reads = delta(server, "sealgate_bytes_total", front="nbd", direction="out")
    writes = delta(server, "sealgate_bytes_total", front="nbd", direction="in")
    flushes = delta(server, "sealgate_requests_total", front="nbd", operation="flush")
    run("qemu-io", "-f", "raw", "-c", "write 0 8M", "-c", "flush", "-c", "read 0 4M", server.uri(volume))
    assert 8 * MiB <= writes() < 8.1 * MiB and 4 * MiB <= reads() < 4.2 * MiB and flushes() >= 1
    for _ in range(100):
        if server.metric("sealgate_nbd_connections") == 0:
            break
    assert server.metric("sealgate_nbd_connections") == 0


def test_what_fails_to_sign_is_counted_and_names_no_operation_of_its_own(server):
    before = {tuple(sorted(l.items())) for n, l, _ in parse_metrics(server.admin("/metrics")[1]) if n == "sealgate_requests_total"}
    for n in range(20):
        Signed(server, "GET", f"/guess-{n}", secret="x" * 40).send()
        Signed(server, "POST", "/", headers={"x-amz-target": f"TrentService.Guess{n}"}, body=b"{}", service="kms").send()
    after = {tuple(sorted(l.items())) for n, l, _ in parse_metrics(server.admin("/metrics")[1]) if n == "sealgate_requests_total"}
    assert len(after - before) <= 4, "a client can make series at will"
