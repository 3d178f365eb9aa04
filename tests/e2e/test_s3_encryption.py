"""SSE-S3, SSE-KMS, DSSE-KMS, SSE-C, bucket keys and bucket encryption, with the recorded errors of S3."""

import base64
import hashlib
import json
import os

import pytest

from harness import ACCOUNT, KiB, MiB, REGION, Signed, payload

ARN = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/"


@pytest.fixture(scope="module")
def key(kms):
    return kms.create_key(Description="objects")["KeyMetadata"]["Arn"]


@pytest.fixture
def customer_key(server, request):
    """A fresh SSE-C key, looked for in every file when the module ends."""
    secret = os.urandom(32)
    server.secret(f"SSE-C key of {request.node.name}", secret)
    return {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": secret}


def test_sse_kms_with_the_key_named_in_every_form(s3, kms, bucket, key):
    kms.create_alias(AliasName="alias/objects", TargetKeyId=key)
    body = payload(200 * KiB)
    for form in (key, key.split("/")[1], "alias/objects", f"arn:aws:kms:{REGION}:{ACCOUNT}:alias/objects"):
        put = s3.put_object(Bucket=bucket, Key="k", Body=body, ServerSideEncryption="aws:kms", SSEKMSKeyId=form)
        assert (put["ServerSideEncryption"], put["SSEKMSKeyId"]) == ("aws:kms", key)
        assert put["ETag"].strip('"') != hashlib.md5(body).hexdigest()
        for answer in (s3.head_object(Bucket=bucket, Key="k"), s3.get_object(Bucket=bucket, Key="k")):
            assert (answer["ServerSideEncryption"], answer["SSEKMSKeyId"]) == ("aws:kms", key)
            assert answer["ETag"] == put["ETag"]
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == body


def test_sse_kms_without_a_key_uses_the_managed_one(s3, kms, bucket):
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"abc", ServerSideEncryption="aws:kms")
    managed = kms.describe_key(KeyId="alias/aws/s3")["KeyMetadata"]
    assert put["SSEKMSKeyId"] == managed["Arn"] and managed["KeyManager"] == "AWS"
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"abc"


def test_dsse_kms_is_refused_clearly_while_it_is_not_there(s3, bucket, key, refused):
    """Never sealed in one layer and called two."""
    said = refused("NotImplemented", 501, s3.put_object, Bucket=bucket, Key="k", Body=b"x", ServerSideEncryption="aws:kms:dsse", SSEKMSKeyId=key)
    assert "aws:kms:dsse" in said.message
    refused("404", 404, s3.head_object, Bucket=bucket, Key="k")


def test_an_encryption_context_is_kept_and_never_shown(s3, bucket, key):
    context = base64.b64encode(json.dumps({"team": "storage", "purpose": "test"}).encode()).decode()
    put = s3.put_object(
        Bucket=bucket, Key="k", Body=b"abc", ServerSideEncryption="aws:kms", SSEKMSKeyId=key, SSEKMSEncryptionContext=context
    )
    assert put["ResponseMetadata"]["HTTPStatusCode"] == 200
    got = s3.get_object(Bucket=bucket, Key="k")
    assert got["Body"].read() == b"abc" and "SSEKMSEncryptionContext" not in got


def test_a_disabled_key_closes_its_objects_at_once_and_enabling_opens_them(s3, kms, bucket, refused):
    own = kms.create_key()["KeyMetadata"]["Arn"]
    for name, extra in (("plain", {}), ("bucket-key", {"BucketKeyEnabled": True})):
        s3.put_object(Bucket=bucket, Key=name, Body=b"abc", ServerSideEncryption="aws:kms", SSEKMSKeyId=own, **extra)
        s3.get_object(Bucket=bucket, Key=name)["Body"].read()
    kms.disable_key(KeyId=own)
    for name in ("plain", "bucket-key"):
        refused("KMS.DisabledException", 400, s3.get_object, Bucket=bucket, Key=name)
        refused(
            "KMS.DisabledException", 400, s3.put_object, Bucket=bucket, Key="new", Body=b"x", ServerSideEncryption="aws:kms",
            SSEKMSKeyId=own, BucketKeyEnabled=name == "bucket-key",
        )
    kms.enable_key(KeyId=own)
    for name in ("plain", "bucket-key"):
        assert s3.get_object(Bucket=bucket, Key=name)["Body"].read() == b"abc"


def test_objects_stay_readable_over_rotations(s3, kms, bucket):
    own = kms.create_key()["KeyMetadata"]["Arn"]
    for n in range(3):
        for extra in ({}, {"BucketKeyEnabled": True}):
            s3.put_object(Bucket=bucket, Key=f"{n}{len(extra)}", Body=b"%d" % n, ServerSideEncryption="aws:kms", SSEKMSKeyId=own, **extra)
        kms.rotate_key_on_demand(KeyId=own)
    for n in range(3):
        for extra in (0, 1):
            assert s3.get_object(Bucket=bucket, Key=f"{n}{extra}")["Body"].read() == b"%d" % n


def test_a_bucket_key_saves_nearly_every_key_request(server, s3, bucket, key):
    def key_requests():
        return server.metric("sealgate_kms_requests_total", caller="s3")

    def put(n, **extra):
        return s3.put_object(Bucket=bucket, Key=f"k{n}", Body=b"abc", ServerSideEncryption="aws:kms", SSEKMSKeyId=key, **extra)

    before = key_requests()
    for n in range(20):
        put(n)
    assert key_requests() - before == 20
    before = key_requests()
    for n in range(200):
        assert put(n, BucketKeyEnabled=True)["BucketKeyEnabled"] is True
    for n in range(200):
        got = s3.get_object(Bucket=bucket, Key=f"k{n}")
        assert got["BucketKeyEnabled"] is True and got["Body"].read() == b"abc"
    # One for sealing, one for opening; the goal is at least 99 % fewer.
    assert key_requests() - before <= 4
    assert server.metric("sealgate_cache_requests_total", cache="bucket_key", result="hit") >= 390


def test_bucket_encryption_decides_what_no_header_says(s3, bucket, key):
    rule = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256" and rule["BucketKeyEnabled"] is False
    default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
    s3.put_bucket_encryption(
        Bucket=bucket,
        ServerSideEncryptionConfiguration={"Rules": [{"ApplyServerSideEncryptionByDefault": default, "BucketKeyEnabled": True}]},
    )
    rule = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert rule["ApplyServerSideEncryptionByDefault"] == default and rule["BucketKeyEnabled"] is True
    put = s3.put_object(Bucket=bucket, Key="by-default", Body=b"abc")
    assert (put["ServerSideEncryption"], put["SSEKMSKeyId"], put["BucketKeyEnabled"]) == ("aws:kms", key, True)
    put = s3.put_object(Bucket=bucket, Key="by-header", Body=b"abc", ServerSideEncryption="AES256")
    assert put["ServerSideEncryption"] == "AES256" and "SSEKMSKeyId" not in put
    for _ in range(2):
        assert s3.delete_bucket_encryption(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert s3.put_object(Bucket=bucket, Key="after", Body=b"abc")["ServerSideEncryption"] == "AES256"
    for name in ("by-default", "by-header", "after"):
        assert s3.get_object(Bucket=bucket, Key=name)["Body"].read() == b"abc"


def test_wrong_bucket_encryption_is_refused(s3, bucket, key, refused):
    def put(*rules):
        return s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": list(rules)})

    aes = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    refused("MalformedXML", 400, put)
    refused("MalformedXML", 400, put, aes, aes)
    with_key = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256", "KMSMasterKeyID": key}}
    refused("InvalidArgument", 400, put, with_key)


def test_a_copy_takes_the_destination_s_encryption_never_the_source_s(s3, bucket, key):
    s3.put_object(Bucket=bucket, Key="kms", Body=b"abc", ServerSideEncryption="aws:kms", SSEKMSKeyId=key)
    source = {"Bucket": bucket, "Key": "kms"}
    assert s3.copy_object(Bucket=bucket, Key="a", CopySource=source)["ServerSideEncryption"] == "AES256"
    answer = s3.copy_object(Bucket=bucket, Key="b", CopySource={"Bucket": bucket, "Key": "a"}, ServerSideEncryption="aws:kms", SSEKMSKeyId=key)
    assert answer["SSEKMSKeyId"] == key
    for name in "ab":
        assert s3.get_object(Bucket=bucket, Key=name)["Body"].read() == b"abc"


@pytest.mark.parametrize("extra", [{}, {"BucketKeyEnabled": True}], ids=["own-key", "bucket-key"])
def test_multipart_under_a_kms_key(s3, bucket, key, extra):
    where = dict(Bucket=bucket, Key="k")
    made = s3.create_multipart_upload(**where, ServerSideEncryption="aws:kms", SSEKMSKeyId=key, **extra)
    assert made["SSEKMSKeyId"] == key
    where["UploadId"] = made["UploadId"]
    bodies = [payload(5 * MiB, 1), payload(70_001, 2)]
    parts = []
    for n, body in enumerate(bodies, 1):
        answer = s3.upload_part(**where, PartNumber=n, Body=body)
        assert answer["ServerSideEncryption"] == "aws:kms"
        parts.append({"PartNumber": n, "ETag": answer["ETag"]})
    done = s3.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
    assert done["SSEKMSKeyId"] == key
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"".join(bodies)


# ---- SSE-C ------------------------------------------------------------------------------------------


def test_sse_c(s3, bucket, customer_key, refused):
    body = payload(300 * KiB)
    put = s3.put_object(Bucket=bucket, Key="k", Body=body, **customer_key)
    md5 = base64.b64encode(hashlib.md5(customer_key["SSECustomerKey"]).digest()).decode()
    assert (put["SSECustomerAlgorithm"], put["SSECustomerKeyMD5"]) == ("AES256", md5)
    assert put["ETag"].strip('"') != hashlib.md5(body).hexdigest()
    got = s3.get_object(Bucket=bucket, Key="k", **customer_key)
    assert got["Body"].read() == body and got["SSECustomerKeyMD5"] == md5 and "ServerSideEncryption" not in got
    ranged = s3.get_object(Bucket=bucket, Key="k", Range="bytes=65530-65540", **customer_key)
    assert ranged["Body"].read() == body[65530:65541]
    assert s3.head_object(Bucket=bucket, Key="k", **customer_key)["ContentLength"] == len(body)
    assert s3.list_objects_v2(Bucket=bucket)["Contents"][0]["Size"] == len(body)

    said = refused("InvalidRequest", 400, s3.get_object, Bucket=bucket, Key="k")
    assert "stored using a form of Server Side Encryption" in said.message
    refused("400", 400, s3.head_object, Bucket=bucket, Key="k")
    other = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": bytes(range(32))}
    refused("AccessDenied", 403, s3.get_object, Bucket=bucket, Key="k", **other)
    refused("403", 403, s3.head_object, Bucket=bucket, Key="k", **other)
    refused("InvalidRequest", 400, s3.copy_object, Bucket=bucket, Key="c", CopySource={"Bucket": bucket, "Key": "k"})


def test_sse_c_copies(s3, bucket, customer_key):
    body = payload(100 * KiB)
    s3.put_object(Bucket=bucket, Key="k", Body=body, **customer_key)
    source = dict(CopySource={"Bucket": bucket, "Key": "k"}, CopySourceSSECustomerAlgorithm="AES256",
                  CopySourceSSECustomerKey=customer_key["SSECustomerKey"])
    assert s3.copy_object(Bucket=bucket, Key="open", **source)["ServerSideEncryption"] == "AES256"
    assert s3.get_object(Bucket=bucket, Key="open")["Body"].read() == body
    s3.copy_object(Bucket=bucket, Key="again", **source, **customer_key)
    assert s3.get_object(Bucket=bucket, Key="again", **customer_key)["Body"].read() == body


def test_sse_c_multipart(s3, bucket, customer_key, refused):
    where = dict(Bucket=bucket, Key="k")
    where["UploadId"] = s3.create_multipart_upload(**where, **customer_key)["UploadId"]
    said = refused("InvalidRequest", 400, s3.upload_part, **where, PartNumber=1, Body=b"x")
    assert "multipart upload initiate requested encryption" in said.message
    other = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": bytes(32)}
    said = refused("InvalidRequest", 400, s3.upload_part, **where, PartNumber=1, Body=b"x", **other)
    assert "did not match the ones used originally" in said.message
    bodies = [payload(5 * MiB, 1), payload(99, 2)]
    parts = [
        {"PartNumber": n, "ETag": s3.upload_part(**where, PartNumber=n, Body=body, **customer_key)["ETag"]}
        for n, body in enumerate(bodies, 1)
    ]
    s3.complete_multipart_upload(**where, MultipartUpload={"Parts": parts}, **customer_key)
    assert s3.get_object(Bucket=bucket, Key="k", **customer_key)["Body"].read() == b"".join(bodies)
    plain = dict(Bucket=bucket, Key="plain")
    plain["UploadId"] = s3.create_multipart_upload(**plain)["UploadId"]
    refused("InvalidRequest", 400, s3.upload_part, **plain, PartNumber=1, Body=b"x", **customer_key)


C = "x-amz-server-side-encryption-customer-"
KEY = bytes(range(1, 33))
KEY64 = base64.b64encode(KEY).decode()
MD5 = base64.b64encode(hashlib.md5(KEY).digest()).decode()
WHOLE = {C + "algorithm": "AES256", C + "key": KEY64, C + "key-md5": MD5}


@pytest.mark.parametrize(
    "headers, code",
    [
        ({**WHOLE, "x-amz-server-side-encryption": "AES256"}, "InvalidArgument"),
        ({**WHOLE, "x-amz-server-side-encryption": "aws:kms"}, "InvalidArgument"),
        ({**WHOLE, C + "algorithm": "AES128"}, "InvalidEncryptionAlgorithmError"),
        ({k: v for k, v in WHOLE.items() if not k.endswith("algorithm")}, "InvalidArgument"),
        ({C + "algorithm": "AES256"}, "InvalidArgument"),
        ({**WHOLE, C + "key": base64.b64encode(KEY[:16]).decode()}, "InvalidArgument"),
        ({**WHOLE, C + "key": "not base64!"}, "InvalidArgument"),
        ({**WHOLE, C + "key-md5": base64.b64encode(bytes(16)).decode()}, "InvalidArgument"),
        ({"x-amz-server-side-encryption": "AES257"}, "InvalidArgument"),
        ({"x-amz-server-side-encryption": "AES256", "x-amz-server-side-encryption-aws-kms-key-id": "k"}, "InvalidArgument"),
        ({"x-amz-server-side-encryption-aws-kms-key-id": "k"}, "InvalidArgument"),
        ({"x-amz-server-side-encryption": "aws:kms",
          "x-amz-server-side-encryption-aws-kms-key-id": "00000000-0000-0000-0000-000000000000"}, "KMS.NotFoundException"),
    ],
    ids=lambda v: v if isinstance(v, str) else "+".join(k.removeprefix("x-amz-server-side-encryption") or "mode" for k in v),
)
def test_headers_that_contradict_are_refused_and_store_nothing(server, s3, bucket, refused, headers, code):
    server.secret("SSE-C key by hand", KEY)
    status, _, answer = Signed(server, "PUT", f"/{bucket}/k", headers=headers, body=b"x").send()
    assert status == 400 and f"<Code>{code}</Code>".encode() in answer, (status, answer)
    refused("404", 404, s3.head_object, Bucket=bucket, Key="k")


def test_every_mode_survives_a_restart(server, s3, bucket, key, customer_key):
    modes = {
        "s3": {}, "kms": dict(ServerSideEncryption="aws:kms", SSEKMSKeyId=key), "managed": dict(ServerSideEncryption="aws:kms"),
        "bucket-key": dict(ServerSideEncryption="aws:kms", SSEKMSKeyId=key, BucketKeyEnabled=True),
        "sse-c": customer_key,
    }
    body = payload(150 * KiB)
    for name, mode in modes.items():
        s3.put_object(Bucket=bucket, Key=name, Body=body, **mode)
    server.restart()
    for name, mode in modes.items():
        extra = mode if name == "sse-c" else {}
        assert s3.get_object(Bucket=bucket, Key=name, **extra)["Body"].read() == body, name
