"""Keys through boto3: the operations, their states and their errors."""

import base64
import hashlib
import json
import re
import uuid

import pytest

from harness import ACCOUNT, REGION, StartError

BASE = f"arn:aws:kms:{REGION}:{ACCOUNT}:"
CONTEXT = {"project": "sealgate", "stage": "test"}


@pytest.fixture(scope="module")
def key(kms):
    return kms.create_key(Description="for every test")["KeyMetadata"]["KeyId"]


@pytest.fixture
def alias():
    return f"alias/test/{uuid.uuid4()}"


def test_a_new_key_describes_itself(kms):
    made = kms.create_key(Description="first", Tags=[{"TagKey": "a", "TagValue": "b"}])["KeyMetadata"]
    uuid.UUID(made["KeyId"])
    assert made["Arn"] == f"{BASE}key/{made['KeyId']}" and made["AWSAccountId"] == ACCOUNT
    assert (made["KeyState"], made["Enabled"], made["KeyUsage"], made["KeySpec"]) == ("Enabled", True, "ENCRYPT_DECRYPT", "SYMMETRIC_DEFAULT")
    assert (made["KeyManager"], made["Origin"], made["MultiRegion"], made["Description"]) == ("CUSTOMER", "AWS_KMS", False, "first")
    for form in (made["KeyId"], made["Arn"]):
        found = kms.describe_key(KeyId=form)["KeyMetadata"]
        assert found == made


def test_keys_are_listed_in_pages(kms):
    made = {kms.create_key()["KeyMetadata"]["KeyId"] for _ in range(7)}
    pages = list(kms.get_paginator("list_keys").paginate(PaginationConfig={"PageSize": 3}))
    listed = [k["KeyId"] for p in pages for k in p["Keys"]]
    assert made <= set(listed) and len(listed) == len(set(listed))
    assert all(len(p["Keys"]) <= 3 for p in pages)
    assert all(k["KeyArn"] == f"{BASE}key/{k['KeyId']}" for p in pages for k in p["Keys"])


def test_what_does_not_exist_is_not_found(kms, refused):
    absent = str(uuid.uuid4())
    for form in (absent, f"{BASE}key/{absent}", "alias/absent", f"{BASE}alias/absent"):
        refused("NotFoundException", 400, kms.describe_key, KeyId=form)
        refused("NotFoundException", 400, kms.encrypt, KeyId=form, Plaintext=b"x")
    for elsewhere in (f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/{absent}", f"arn:aws:kms:{REGION}:210987654321:key/{absent}"):
        with pytest.raises(kms.exceptions.ClientError):
            kms.encrypt(KeyId=elsewhere, Plaintext=b"x")


def test_aliases(kms, key, alias, refused):
    kms.create_alias(AliasName=alias, TargetKeyId=key)
    refused("AlreadyExistsException", 400, kms.create_alias, AliasName=alias, TargetKeyId=key)
    assert kms.describe_key(KeyId=alias)["KeyMetadata"]["KeyId"] == key
    assert kms.describe_key(KeyId=BASE + alias)["KeyMetadata"]["KeyId"] == key
    found = {a["AliasName"]: a for p in kms.get_paginator("list_aliases").paginate() for a in p["Aliases"]}
    assert found[alias]["TargetKeyId"] == key and found[alias]["AliasArn"] == BASE + alias
    assert alias in [a["AliasName"] for a in kms.list_aliases(KeyId=key)["Aliases"]]
    blob = kms.encrypt(KeyId=alias, Plaintext=b"under the first")["CiphertextBlob"]
    other = kms.create_key()["KeyMetadata"]["KeyId"]
    kms.update_alias(AliasName=alias, TargetKeyId=other)
    assert kms.describe_key(KeyId=alias)["KeyMetadata"]["KeyId"] == other
    assert kms.decrypt(CiphertextBlob=blob)["Plaintext"] == b"under the first"
    refused("IncorrectKeyException", 400, kms.decrypt, CiphertextBlob=blob, KeyId=alias)
    kms.delete_alias(AliasName=alias)
    refused("NotFoundException", 400, kms.describe_key, KeyId=alias)
    refused("NotFoundException", 400, kms.delete_alias, AliasName=alias)


def test_alias_names_have_rules(kms, key, refused):
    for name in ("alias/aws/mine", "alias/with space", "alias/ü"):
        with pytest.raises(kms.exceptions.ClientError) as error:
            kms.create_alias(AliasName=name, TargetKeyId=key)
        assert error.value.response["Error"]["Code"] in ("InvalidAliasNameException", "ValidationException", "NotAuthorizedException")
    with pytest.raises(kms.exceptions.ClientError):
        kms.create_alias(AliasName="no-prefix", TargetKeyId=key)


def test_encrypt_and_decrypt(kms, key):
    for plaintext in (b"x", b"\0" * 17, bytes(range(256)) * 16):
        sealed = kms.encrypt(KeyId=key, Plaintext=plaintext, EncryptionContext=CONTEXT)
        assert sealed["KeyId"] == f"{BASE}key/{key}" and sealed["EncryptionAlgorithm"] == "SYMMETRIC_DEFAULT"
        blob = sealed["CiphertextBlob"]
        assert plaintext not in blob or len(plaintext) == 1
        for form in ({}, {"KeyId": key}, {"KeyId": f"{BASE}key/{key}"}):
            opened = kms.decrypt(CiphertextBlob=blob, EncryptionContext=dict(reversed(CONTEXT.items())), **form)
            assert opened["Plaintext"] == plaintext and opened["KeyId"] == f"{BASE}key/{key}"
    assert kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"] != kms.encrypt(KeyId=key, Plaintext=b"x")["CiphertextBlob"]


def test_bounds_of_plaintext_and_ciphertext(kms, key, refused):
    blob = kms.encrypt(KeyId=key, Plaintext=b"x" * 4096)["CiphertextBlob"]
    assert len(blob) <= 6144
    refused("ValidationException", 400, kms.encrypt, KeyId=key, Plaintext=b"x" * 4097)
    refused("ValidationException", 400, kms.decrypt, CiphertextBlob=b"x" * 6145)
    for length in (1, 32, 1024):
        assert len(kms.generate_random(NumberOfBytes=length)["Plaintext"]) == length
    refused("ValidationException", 400, kms.generate_random, NumberOfBytes=1025)


@pytest.mark.parametrize(
    "sealed, opened",
    [
        ({"a": "bc"}, {"ab": "c"}), ({"a": "bc"}, {"a": "BC"}), ({"a": "bc"}, {"A": "bc"}), ({"a": "b", "c": "d"}, {"a": "b"}),
        ({"a": "b"}, {"a": "b", "c": "d"}), ({"a": "b"}, {}), ({}, {"a": "b"}), ({"a": ""}, {}), ({"a": "b", "c": "d"}, {"a": "d", "c": "b"}),
        ({"a": "\u00e4"}, {"a": "a\u0308"}), ({"a": "b "}, {"a": "b"}), ({"a": "b=c"}, {"a=b": "c"}), ({"a": "1", "b": "2"}, {"a": '1","b":"2'}),
    ],
    ids=repr,
)
def test_another_context_does_not_open(kms, key, refused, sealed, opened):
    blob = kms.encrypt(KeyId=key, Plaintext=b"secret", EncryptionContext=sealed)["CiphertextBlob"]
    refused("InvalidCiphertextException", 400, kms.decrypt, CiphertextBlob=blob, EncryptionContext=opened)
    assert kms.decrypt(CiphertextBlob=blob, EncryptionContext=sealed)["Plaintext"] == b"secret"


def test_an_altered_blob_does_not_open_and_every_refusal_reads_alike(kms, key, refused):
    blob = kms.encrypt(KeyId=key, Plaintext=b"secret", EncryptionContext=CONTEXT)["CiphertextBlob"]
    bent = [blob[:at] + bytes([blob[at] ^ 0x40]) + blob[at + 1 :] for at in range(len(blob))]
    bent += [blob[:-1], blob[1:], blob + b"\0", blob[: len(blob) // 2], b"\0", blob * 2]
    said = {refused("InvalidCiphertextException", 400, kms.decrypt, CiphertextBlob=b, EncryptionContext=CONTEXT).message for b in bent}
    assert len(said) == 1, said


def test_data_keys(server, kms, key, refused):
    for length, ask in ((32, {"KeySpec": "AES_256"}), (16, {"KeySpec": "AES_128"}), (64, {"NumberOfBytes": 64})):
        made = kms.generate_data_key(KeyId=key, EncryptionContext=CONTEXT, **ask)
        assert len(made["Plaintext"]) == length and made["KeyId"] == f"{BASE}key/{key}"
        server.secret(f"data key of {length} bytes", made["Plaintext"])
        assert kms.decrypt(CiphertextBlob=made["CiphertextBlob"], EncryptionContext=CONTEXT)["Plaintext"] == made["Plaintext"]
        without = kms.generate_data_key_without_plaintext(KeyId=key, EncryptionContext=CONTEXT, **ask)
        assert "Plaintext" not in without
        assert len(kms.decrypt(CiphertextBlob=without["CiphertextBlob"], EncryptionContext=CONTEXT)["Plaintext"]) == length
    refused("ValidationException", 400, kms.generate_data_key, KeyId=key)
    refused("ValidationException", 400, kms.generate_data_key, KeyId=key, KeySpec="AES_256", NumberOfBytes=32)
    refused("ValidationException", 400, kms.generate_data_key, KeyId=key, NumberOfBytes=1025)


def test_re_encrypt_moves_to_another_key_and_context(kms, key, refused):
    other = kms.create_key()["KeyMetadata"]["KeyId"]
    blob = kms.encrypt(KeyId=key, Plaintext=b"secret", EncryptionContext=CONTEXT)["CiphertextBlob"]
    moved = kms.re_encrypt(
        CiphertextBlob=blob, SourceEncryptionContext=CONTEXT, DestinationKeyId=other, DestinationEncryptionContext={"new": "1"}
    )
    assert moved["SourceKeyId"] == f"{BASE}key/{key}" and moved["KeyId"] == f"{BASE}key/{other}"
    opened = kms.decrypt(CiphertextBlob=moved["CiphertextBlob"], EncryptionContext={"new": "1"})
    assert opened["Plaintext"] == b"secret" and opened["KeyId"] == f"{BASE}key/{other}"
    refused("InvalidCiphertextException", 400, kms.re_encrypt, CiphertextBlob=blob, DestinationKeyId=other)
    refused("IncorrectKeyException", 400, kms.re_encrypt, CiphertextBlob=blob, SourceKeyId=other, SourceEncryptionContext=CONTEXT,
            DestinationKeyId=other)


def test_decrypt_with_a_key_that_is_not_the_one(kms, key, refused):
    other = kms.create_key()["KeyMetadata"]["KeyId"]
    blob = kms.encrypt(KeyId=key, Plaintext=b"secret")["CiphertextBlob"]
    refused("IncorrectKeyException", 400, kms.decrypt, CiphertextBlob=blob, KeyId=other)


def test_a_disabled_key_does_nothing_until_it_is_enabled(kms, refused):
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    blob = kms.encrypt(KeyId=key, Plaintext=b"secret")["CiphertextBlob"]
    other = kms.create_key()["KeyMetadata"]["KeyId"]
    kms.disable_key(KeyId=key)
    described = kms.describe_key(KeyId=key)["KeyMetadata"]
    assert (described["KeyState"], described["Enabled"]) == ("Disabled", False)
    refused("DisabledException", 400, kms.encrypt, KeyId=key, Plaintext=b"x")
    refused("DisabledException", 400, kms.decrypt, CiphertextBlob=blob)
    refused("DisabledException", 400, kms.generate_data_key, KeyId=key, KeySpec="AES_256")
    refused("DisabledException", 400, kms.generate_data_key_without_plaintext, KeyId=key, KeySpec="AES_256")
    refused("DisabledException", 400, kms.re_encrypt, CiphertextBlob=blob, DestinationKeyId=other)
    refused("DisabledException", 400, kms.rotate_key_on_demand, KeyId=key)
    kms.disable_key(KeyId=key)
    kms.enable_key(KeyId=key)
    assert kms.decrypt(CiphertextBlob=blob)["Plaintext"] == b"secret"


def test_rotations_keep_every_earlier_blob_open(kms):
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    blobs = []
    for n in range(10):
        blobs.append(kms.encrypt(KeyId=key, Plaintext=b"%d" % n)["CiphertextBlob"])
        assert kms.rotate_key_on_demand(KeyId=key)["KeyId"].endswith(key)
    blobs.append(kms.encrypt(KeyId=key, Plaintext=b"10")["CiphertextBlob"])
    for n, blob in enumerate(blobs):
        assert kms.decrypt(CiphertextBlob=blob, KeyId=key)["Plaintext"] == b"%d" % n


def test_managed_keys_cannot_be_turned_off(server, s3, kms, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", ServerSideEncryption="aws:kms")
    managed = kms.describe_key(KeyId="alias/aws/s3")["KeyMetadata"]
    assert managed["KeyManager"] == "AWS"
    for call in (kms.disable_key, kms.rotate_key_on_demand):
        with pytest.raises(kms.exceptions.ClientError):
            call(KeyId=managed["KeyId"])
    assert kms.describe_key(KeyId="alias/aws/s3")["KeyMetadata"]["Enabled"]


def test_unknown_operations_and_bad_bodies_are_refused(server):
    from harness import Signed

    def post(target, body):
        headers = {"content-type": "application/x-amz-json-1.1", "x-amz-target": target}
        status, _, answer = Signed(server, "POST", "/", headers=headers, body=body, service="kms").send()
        return status, answer

    for target, body in [
        ("TrentService.MakeCoffee", b"{}"), ("TrentService.Encrypt", b"{"), ("TrentService.Encrypt", b"[]"), ("TrentService.Encrypt", b""),
        ("TrentService.Encrypt", b'{"KeyId":"a","KeyId":"b","Plaintext":"eA=="}'), ("TrentService.Decrypt", b'{"CiphertextBlob":"***"}'),
        ("", b"{}"),
    ]:
        status, answer = post(target, body)
        assert status == 400 and b"__type" in answer, (target, status, answer)


def test_every_use_is_in_the_audit_log_before_the_answer(server, kms):
    """Read while the server runs, right after the answer: nothing is still in a buffer."""
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    blob = kms.encrypt(KeyId=key, Plaintext=b"secret", EncryptionContext={"visible": "in-the-audit"})["CiphertextBlob"]
    kms.decrypt(CiphertextBlob=blob, EncryptionContext={"visible": "in-the-audit"})
    texts = [str(r) for r in server.audit_records()]
    for operation in ("CreateKey", "Encrypt", "Decrypt"):
        assert any(re.search(rf"\b(kms:)?{operation}\b", t) and key in t for t in texts), operation
    # A refused use is recorded too.
    kms.disable_key(KeyId=key)
    before = len(server.audit_records())
    with pytest.raises(kms.exceptions.ClientError):
        kms.decrypt(CiphertextBlob=blob, EncryptionContext={"visible": "in-the-audit"})
    assert len(server.audit_records()) > before


def test_keys_survive_restart_and_crash(server, kms, key, alias):
    kms.create_alias(AliasName=alias, TargetKeyId=key)
    rotated = kms.create_key()["KeyMetadata"]["KeyId"]
    blobs = [kms.encrypt(KeyId=rotated, Plaintext=b"old", EncryptionContext=CONTEXT)["CiphertextBlob"]]
    kms.rotate_key_on_demand(KeyId=rotated)
    blobs.append(kms.encrypt(KeyId=rotated, Plaintext=b"new", EncryptionContext=CONTEXT)["CiphertextBlob"])
    off = kms.create_key()["KeyMetadata"]["KeyId"]
    kms.disable_key(KeyId=off)
    listed = {k["KeyId"] for p in kms.get_paginator("list_keys").paginate() for k in p["Keys"]}
    for again in ("stop", "kill"):
        getattr(server, again)()
        server.start()
        assert {k["KeyId"] for p in kms.get_paginator("list_keys").paginate() for k in p["Keys"]} == listed
        assert [kms.decrypt(CiphertextBlob=b, EncryptionContext=CONTEXT)["Plaintext"] for b in blobs] == [b"old", b"new"]
        assert kms.describe_key(KeyId=off)["KeyMetadata"]["KeyState"] == "Disabled"
        assert kms.describe_key(KeyId=alias)["KeyMetadata"]["KeyId"] == key


def test_acknowledged_keys_and_uses_outlive_kill_nine(own_server):
    server = own_server.start()
    for round_ in range(3):
        kms = server.client("kms")
        key = kms.create_key(Description=f"round {round_}")["KeyMetadata"]["KeyId"]
        blobs = [kms.encrypt(KeyId=key, Plaintext=b"%d" % n)["CiphertextBlob"] for n in range(20)]
        server.kill()
        records = [str(r) for r in server.audit_records()]
        assert sum("Encrypt" in r and key in r for r in records) == 20, "a use was answered that the audit log does not have"
        server.start()
        kms = server.client("kms")
        assert [kms.decrypt(CiphertextBlob=b)["Plaintext"] for b in blobs] == [b"%d" % n for n in range(20)]


def test_the_command_line_client(server, tmp_path):
    made = server.aws("kms", "create-key", "--description", "from the CLI")["KeyMetadata"]["KeyId"]
    server.aws("kms", "create-alias", "--alias-name", "alias/cli", "--target-key-id", made)
    assert "alias/cli" in [a["AliasName"] for a in server.aws("kms", "list-aliases")["Aliases"]]
    secret = tmp_path / "secret"
    secret.write_bytes(b"from the command line")
    sealed = server.aws("kms", "encrypt", "--key-id", "alias/cli", "--plaintext", f"fileb://{secret}", "--encryption-context", "a=b")
    blob = tmp_path / "blob"
    blob.write_bytes(base64.b64decode(sealed["CiphertextBlob"]))
    opened = server.aws("kms", "decrypt", "--ciphertext-blob", f"fileb://{blob}", "--encryption-context", "a=b")
    assert base64.b64decode(opened["Plaintext"]) == b"from the command line"
    assert server.aws("kms", "describe-key", "--key-id", made)["KeyMetadata"]["Enabled"] is True
    data_key = server.aws("kms", "generate-data-key", "--key-id", made, "--key-spec", "AES_256")
    server.secret("data key for the CLI", base64.b64decode(data_key["Plaintext"]))
    server.aws("kms", "rotate-key-on-demand", "--key-id", made)
    server.aws("kms", "disable-key", "--key-id", made)
    done = server.aws("kms", "decrypt", "--ciphertext-blob", f"fileb://{blob}", "--encryption-context", "a=b", check=False)
    assert done.returncode != 0 and "DisabledException" in done.stderr
    assert server.aws("sts", "get-caller-identity")["Account"] == ACCOUNT


def test_the_audit_log_is_a_chain_that_hashlib_can_follow(own_server):
    server = own_server.start()
    kms = server.client("kms")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    for n in range(5):
        kms.encrypt(KeyId=key, Plaintext=b"%d" % n)
    kms.disable_key(KeyId=key)

    def lines():
        return [line for path in sorted((server.data_dir / "audit").glob("audit-*.jsonl")) for line in path.read_bytes().splitlines()]

    previous = bytes(32)
    for number, line in enumerate(lines(), 1):
        body, end = line[:-75], line[-75:]
        assert end.startswith(b',"hash":"') and end.endswith(b'"}')
        digest = hashlib.sha256(previous + body).digest()
        assert end[9:-2].decode() == digest.hex(), f"record {number}"
        assert json.loads(line)["seq"] == number
        previous = digest
    records = server.audit_records()
    intent = next(r for r in records if r["operation"] == "DisableKey" and r["outcome"] == "Intended")
    assert any(r.get("intent") == intent["seq"] and r["outcome"] == "Success" for r in records)

    # The live log and the closed one verify, and give the same digest.
    told = json.loads(server.sealgate("--output", "json", "audit", "verify").stdout)
    assert told["Whole"] and told["Digest"] == previous.hex() and told["Last"] == len(lines())
    server.stop()
    last = sorted((server.data_dir / "audit").glob("audit-*.jsonl"))[-1]
    whole = last.read_bytes()
    assert "dropped" not in server.sealgate("audit", "verify").stdout
    kept = whole.splitlines(keepends=True)
    for changed, finding in (
        (kept[:2] + kept[3:], "dropped"),
        (kept[:-1], "ends with record"),
        ([kept[0], kept[2], kept[1], *kept[3:]], "not in its turn"),
        ([line.replace(b"Encrypt", b"Decrypt") for line in kept], "rewritten"),
    ):
        last.write_bytes(b"".join(changed))
        done = server.sealgate("audit", "verify", check=False)
        assert done.returncode != 0 and finding in done.stdout, done
        assert "not whole" in done.stderr
    last.write_bytes(whole)
    server.sealgate("audit", "verify")
    server.start()
    server.stop()


def test_a_lost_segment_of_the_audit_log_stops_the_start_until_it_is_accepted(own_server):
    server = own_server.start()
    kms = server.client("kms")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    server.stop()
    last = sorted((server.data_dir / "audit").glob("audit-*.jsonl"))[-1]
    last.unlink()
    with pytest.raises(StartError, match="doctor --accept-older audit"):
        server.start()
    server.sealgate("doctor", "--accept-older", "audit")
    server.start()
    blob = server.client("kms").encrypt(KeyId=key, Plaintext=b"again")["CiphertextBlob"]
    assert server.client("kms").decrypt(CiphertextBlob=blob)["Plaintext"] == b"again"
    assert any("AuditAcceptLoss" in str(r) for r in server.audit_records())
    server.sealgate("audit", "verify")
    server.stop()
