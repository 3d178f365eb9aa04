"""Objects through boto3: what every S3 client relies on."""

import base64
import concurrent.futures
import hashlib
import io
import re
import zlib
from datetime import datetime, timedelta, timezone

import pytest
from boto3.s3.transfer import TransferConfig

from harness import KiB, MiB, Signed, payload, sha256, streaming

CHUNK = 64 * KiB


@pytest.mark.parametrize("size", [0, 1, 15, 4096, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 1 * MiB + 7])
def test_an_object_comes_back_bit_for_bit(s3, bucket, size):
    body = payload(size, seed=size)
    put = s3.put_object(Bucket=bucket, Key="k", Body=body)
    assert put["ServerSideEncryption"] == "AES256"
    assert put["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
    head = s3.head_object(Bucket=bucket, Key="k")
    assert head["ContentLength"] == size
    assert head["ETag"] == put["ETag"]
    got = s3.get_object(Bucket=bucket, Key="k")
    assert got["ContentLength"] == size
    assert got["ServerSideEncryption"] == "AES256"
    assert got["Body"].read() == body


def test_ranges_are_cut_exactly(s3, bucket):
    size = 5 * CHUNK + 321
    body = payload(size)
    s3.put_object(Bucket=bucket, Key="k", Body=body)
    cases = [(0, 0), (0, 1), (1, 1), (CHUNK - 1, CHUNK), (CHUNK, 2 * CHUNK - 1), (CHUNK - 1, 3 * CHUNK + 1), (size - 1, size - 1),
             (3 * CHUNK + 17, size + 99), (0, size - 1)]
    for first, last in cases:
        got = s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={first}-{last}")
        end = min(last, size - 1)
        assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
        assert got["ContentRange"] == f"bytes {first}-{end}/{size}"
        assert got["ContentLength"] == end - first + 1
        assert got["Body"].read() == body[first : end + 1], (first, last)
    for suffix in (1, 100, CHUNK + 5, size + 5):
        got = s3.get_object(Bucket=bucket, Key="k", Range=f"bytes=-{suffix}")
        assert got["Body"].read() == body[-suffix:], suffix
    got = s3.get_object(Bucket=bucket, Key="k", Range=f"bytes={4 * CHUNK}-")
    assert got["Body"].read() == body[4 * CHUNK :]


def test_a_range_past_the_end_is_refused(s3, bucket, refused):
    s3.put_object(Bucket=bucket, Key="k", Body=b"abc")
    refused("InvalidRange", 416, s3.get_object, Bucket=bucket, Key="k", Range="bytes=3-5")
    refused("InvalidRange", 416, s3.get_object, Bucket=bucket, Key="k", Range="bytes=-0")


def test_metadata_and_content_headers_come_back(s3, bucket):
    headers = dict(
        ContentType="text/x-sealed; charset=utf-8", CacheControl="no-store", ContentDisposition='attachment; filename="x y"',
        ContentLanguage="de", ContentEncoding="identity", Metadata={"owner": "ada", "empty": "", "mixed-case": "Va Lue"},
    )
    s3.put_object(Bucket=bucket, Key="k", Body=b"x", **headers)
    for answer in (s3.head_object(Bucket=bucket, Key="k"), s3.get_object(Bucket=bucket, Key="k")):
        for name, value in headers.items():
            assert answer[name] == value, name
        age = datetime.now(timezone.utc) - answer["LastModified"]
        assert timedelta(seconds=-5) < age < timedelta(minutes=2)


def test_overwriting_and_deleting(s3, bucket, refused):
    s3.put_object(Bucket=bucket, Key="k", Body=b"one")
    s3.put_object(Bucket=bucket, Key="k", Body=b"two")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"two"
    assert s3.delete_object(Bucket=bucket, Key="k")["ResponseMetadata"]["HTTPStatusCode"] == 204
    refused("NoSuchKey", 404, s3.get_object, Bucket=bucket, Key="k")
    refused("404", 404, s3.head_object, Bucket=bucket, Key="k")
    assert s3.delete_object(Bucket=bucket, Key="k")["ResponseMetadata"]["HTTPStatusCode"] == 204


def test_buckets(s3, refused):
    s3.create_bucket(Bucket="bucket-of-its-own")
    assert "bucket-of-its-own" in [b["Name"] for b in s3.list_buckets()["Buckets"]]
    s3.head_bucket(Bucket="bucket-of-its-own")
    s3.get_bucket_location(Bucket="bucket-of-its-own")
    s3.put_object(Bucket="bucket-of-its-own", Key="k", Body=b"x")
    refused("BucketNotEmpty", 409, s3.delete_bucket, Bucket="bucket-of-its-own")
    s3.delete_object(Bucket="bucket-of-its-own", Key="k")
    s3.delete_bucket(Bucket="bucket-of-its-own")
    refused("404", 404, s3.head_bucket, Bucket="bucket-of-its-own")
    refused("NoSuchBucket", 404, s3.delete_bucket, Bucket="bucket-of-its-own")
    refused("NoSuchBucket", 404, s3.put_object, Bucket="bucket-of-its-own", Key="k", Body=b"x")
    refused("NoSuchBucket", 404, s3.list_objects_v2, Bucket="bucket-of-its-own")
    refused("InvalidBucketName", 400, s3.create_bucket, Bucket="Has_Upper")


def test_a_key_and_a_key_below_it_are_two_objects(s3, bucket):
    keys = ["a", "a/", "a/b", "a//b", "./a", "../a", "a b+c%20", "ümläut/日本", "x" * 1000, "q?x=1&y#z", "back\\slash", "quo\"te'"]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    for key in keys:
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode()
    listed = [o["Key"] for o in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    assert listed == sorted(keys, key=str.encode)


def test_lists_in_pages(s3, bucket):
    keys = sorted(f"{folder}/{i:03}" for folder in ("alpha", "beta", "gamma") for i in range(9)) + ["top", "zed"]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())

    def v2(**kwargs):
        return list(s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, **kwargs))

    pages = v2(PaginationConfig={"PageSize": 4})
    assert [len(p["Contents"]) for p in pages] == [4] * 7 + [1]
    assert [o["Key"] for p in pages for o in p["Contents"]] == keys
    assert all(o["Size"] == len(o["Key"]) for p in pages for o in p["Contents"])
    md5 = hashlib.md5(b"top").hexdigest()
    assert [o["ETag"] for p in pages for o in p["Contents"] if o["Key"] == "top"] == [f'"{md5}"']

    pages = v2(Delimiter="/", PaginationConfig={"PageSize": 2})
    prefixes = [c["Prefix"] for p in pages for c in p.get("CommonPrefixes", [])]
    assert prefixes == ["alpha/", "beta/", "gamma/"]
    assert [o["Key"] for p in pages for o in p.get("Contents", [])] == ["top", "zed"]
    assert all(p["KeyCount"] == len(p.get("Contents", [])) + len(p.get("CommonPrefixes", [])) for p in pages)

    assert [o["Key"] for p in v2(Prefix="beta/") for o in p["Contents"]] == [k for k in keys if k.startswith("beta/")]
    assert [o["Key"] for p in v2(StartAfter="gamma/007") for o in p["Contents"]] == ["gamma/008", "top", "zed"]
    v1 = list(s3.get_paginator("list_objects").paginate(Bucket=bucket, PaginationConfig={"PageSize": 5}))
    assert [o["Key"] for p in v1 for o in p["Contents"]] == keys
    v1 = list(s3.get_paginator("list_objects").paginate(Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": 1}))
    assert [c["Prefix"] for p in v1 for c in p.get("CommonPrefixes", [])] == prefixes
    assert s3.list_objects_v2(Bucket=bucket, Prefix="nothing")["KeyCount"] == 0


def test_deleting_many_at_once(s3, bucket):
    for i in range(30):
        s3.put_object(Bucket=bucket, Key=f"k{i}", Body=b"x")
    answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": f"k{i}"} for i in range(25)] + [{"Key": "never"}]})
    assert len(answer["Deleted"]) == 26 and not answer.get("Errors")
    left = [o["Key"] for o in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    assert left == [f"k{i}" for i in range(25, 30)]


def test_copying(s3, bucket, refused):
    body = payload(2 * CHUNK + 5)
    s3.put_object(Bucket=bucket, Key="from me", Body=body, Metadata={"a": "1"}, ContentType="text/plain")
    source = {"Bucket": bucket, "Key": "from me"}
    s3.copy_object(Bucket=bucket, Key="to", CopySource=source)
    got = s3.get_object(Bucket=bucket, Key="to")
    assert got["Body"].read() == body and got["Metadata"] == {"a": "1"} and got["ContentType"] == "text/plain"
    s3.copy_object(Bucket=bucket, Key="to", CopySource=source, MetadataDirective="REPLACE", Metadata={"b": "2"})
    assert s3.head_object(Bucket=bucket, Key="to")["Metadata"] == {"b": "2"}
    refused("InvalidRequest", 400, s3.copy_object, Bucket=bucket, Key="to", CopySource={"Bucket": bucket, "Key": "to"})
    refused("NoSuchKey", 404, s3.copy_object, Bucket=bucket, Key="x", CopySource={"Bucket": bucket, "Key": "absent"})


def test_conditions(s3, bucket, refused):
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"one", IfNoneMatch="*")["ETag"]
    refused("PreconditionFailed", 412, s3.put_object, Bucket=bucket, Key="k", Body=b"two", IfNoneMatch="*")
    refused("PreconditionFailed", 412, s3.put_object, Bucket=bucket, Key="k", Body=b"two", IfMatch='"0123"')
    assert s3.get_object(Bucket=bucket, Key="k", IfMatch=etag)["Body"].read() == b"one"
    refused("304", 304, s3.get_object, Bucket=bucket, Key="k", IfNoneMatch=etag)
    refused("PreconditionFailed", 412, s3.get_object, Bucket=bucket, Key="k", IfMatch='"0123"')
    later = datetime.now(timezone.utc) + timedelta(hours=1)
    refused("304", 304, s3.get_object, Bucket=bucket, Key="k", IfModifiedSince=datetime.now(timezone.utc) + timedelta(seconds=-0))
    s3.get_object(Bucket=bucket, Key="k", IfUnmodifiedSince=later)
    s3.put_object(Bucket=bucket, Key="k", Body=b"two", IfMatch=etag)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"two"


def test_tags_and_attributes(s3, bucket):
    tags = [{"Key": "team", "Value": "storage"}, {"Key": "x y", "Value": "ä"}]
    s3.put_object(Bucket=bucket, Key="k", Body=b"abc", Tagging="first=1")
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == [{"Key": "first", "Value": "1"}]
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging={"TagSet": tags})
    found = s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"]
    assert sorted(found, key=str) == sorted(tags, key=str)
    s3.delete_object_tagging(Bucket=bucket, Key="k")
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == []
    answer = s3.get_object_attributes(Bucket=bucket, Key="k", ObjectAttributes=["ETag", "ObjectSize", "StorageClass"])
    assert answer["ObjectSize"] == 3
    assert answer["ETag"].strip('"') == hashlib.md5(b"abc").hexdigest()


# ---- checks of what was sent ------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_a_checksum_is_over_the_plaintext_and_comes_back(s3, bucket, algorithm):
    body = payload(CHUNK + 99)
    known = {
        "CRC32": zlib.crc32(body).to_bytes(4, "big"), "SHA1": hashlib.sha1(body).digest(), "SHA256": hashlib.sha256(body).digest()
    }
    put = s3.put_object(Bucket=bucket, Key="k", Body=body, ChecksumAlgorithm=algorithm)
    head = s3.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    name = f"Checksum{algorithm}"
    assert head[name] == put[name]
    if algorithm in known:
        assert head[name] == base64.b64encode(known[algorithm]).decode()


@pytest.mark.parametrize(
    "headers, code",
    [
        ({"content-md5": base64.b64encode(bytes(16)).decode()}, b"BadDigest"),
        ({"content-md5": "nonsense"}, b"InvalidDigest"),
        ({"x-amz-checksum-crc32": base64.b64encode(bytes(4)).decode()}, b"BadDigest"),
        ({"x-amz-checksum-sha256": base64.b64encode(bytes(32)).decode()}, b"BadDigest"),
    ],
)
def test_a_wrong_digest_leaves_the_old_object(server, s3, bucket, headers, code):
    for size in (100, 3 * MiB):
        old, new = payload(size, "old"), payload(size, "new")
        s3.put_object(Bucket=bucket, Key="k", Body=old)
        status, _, answer = Signed(server, "PUT", f"/{bucket}/k", headers=headers, body=new).send()
        assert status == 400 and b"<Code>" + code + b"</Code>" in answer, answer
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == old


def test_a_body_other_than_the_signed_one_leaves_the_old_object(server, s3, bucket):
    for size in (100, 3 * MiB):
        old, new = payload(size, "old"), payload(size, "new")
        s3.put_object(Bucket=bucket, Key="k", Body=old)
        status, _, answer = Signed(server, "PUT", f"/{bucket}/k", body=new).send(payload(size, "other"))
        assert status == 400 and b"XAmzContentSHA256Mismatch" in answer, answer
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == old


def test_a_body_that_breaks_off_leaves_the_old_object(server, s3, bucket):
    for size in (1000, 3 * MiB):
        old, new = payload(size, "old"), payload(size, "new")
        s3.put_object(Bucket=bucket, Key="k", Body=old)
        for payload_hash in (None, "UNSIGNED-PAYLOAD"):
            request = Signed(server, "PUT", f"/{bucket}/k", body=new, payload_hash=payload_hash)
            try:
                status = request.send(new[: size // 2], length=size)[0]
                assert status >= 400
            except OSError:
                pass  # hanging up is an answer too
            except Exception as error:
                assert "RemoteDisconnected" in type(error).__name__, error
            assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == old


def test_signed_chunks_are_taken(server, s3, bucket):
    for size in (0, 1, 64 * KiB, 200 * KiB + 3):
        body = payload(size)
        status, _, answer = streaming(server, f"/{bucket}/k", body)
        assert status == 200, answer
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == body


def test_broken_signed_chunks_leave_the_old_object(server, s3, bucket):
    old, new = payload(200 * KiB, "old"), payload(200 * KiB, "new")
    s3.put_object(Bucket=bucket, Key="k", Body=old)
    for case in (dict(break_at=0), dict(break_at=3), dict(final=False), dict(declared=200 * KiB + 1), dict(declared=200 * KiB - 1)):
        status, _, answer = streaming(server, f"/{bucket}/k", new, **case)
        assert 400 <= status < 500, (case, status, answer)
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == old, case


def unsigned_trailer(server, path, data, crc, name="x-amz-checksum-crc32", with_trailer=True):
    body = b"%x\r\n%s\r\n0\r\n" % (len(data), data) if data else b"0\r\n"
    if with_trailer:
        body += f"{name}:{base64.b64encode(crc.to_bytes(4, 'big')).decode()}\r\n".encode()
    body += b"\r\n"
    request = Signed(
        server, "PUT", path, payload_hash="STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        headers={"content-encoding": "aws-chunked", "x-amz-decoded-content-length": str(len(data)), "x-amz-trailer": name},
    )
    return request.send(body)


def test_a_trailing_checksum_is_checked_before_the_object_is_there(server, s3, bucket):
    old, new = payload(100 * KiB, "old"), payload(100 * KiB, "new")
    s3.put_object(Bucket=bucket, Key="k", Body=old)
    status, _, answer = unsigned_trailer(server, f"/{bucket}/k", new, zlib.crc32(new) ^ 1)
    assert status == 400 and b"BadDigest" in answer, answer
    status, _, answer = unsigned_trailer(server, f"/{bucket}/k", new, 0, with_trailer=False)
    assert 400 <= status < 500, answer
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == old
    status, _, answer = unsigned_trailer(server, f"/{bucket}/k", new, zlib.crc32(new))
    assert status == 200, answer
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == new


@pytest.mark.parametrize("subresource", ["acl", "legal-hold", "retention", "torrent", "restore", "encryption", "unheard-of"])
def test_a_subresource_that_is_not_there_never_touches_the_object(server, s3, bucket, subresource):
    s3.put_object(Bucket=bucket, Key="k", Body=b"old")
    Signed(server, "PUT", f"/{bucket}/k", query=[(subresource, "")], body=b"<X/>").send()
    Signed(server, "DELETE", f"/{bucket}/k", query=[(subresource, "")]).send()
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"old"
    status, _, answer = Signed(server, "PUT", f"/{bucket}/k", query=[("unheard-of", "")], body=b"new").send()
    assert status in (400, 501), answer


# ---- multipart --------------------------------------------------------------------------------------


def test_a_hundred_mebibytes_in_parts(s3, bucket):
    body = payload(100 * MiB)
    config = TransferConfig(multipart_threshold=8 * MiB, multipart_chunksize=8 * MiB, max_concurrency=4)
    s3.upload_fileobj(io.BytesIO(body), bucket, "big", Config=config)
    head = s3.head_object(Bucket=bucket, Key="big")
    assert head["ContentLength"] == len(body)
    assert re.fullmatch(r'"[0-9a-f]{32}-13"', head["ETag"])
    back = io.BytesIO()
    s3.download_fileobj(bucket, "big", back, Config=config)
    assert sha256(back.getvalue()) == sha256(body)
    assert sha256(s3.get_object(Bucket=bucket, Key="big")["Body"].read()) == sha256(body)
    for first, last in [(8 * MiB - 3, 8 * MiB + 3), (0, 17 * MiB), (99 * MiB, 100 * MiB - 1), (50 * MiB + 1, 50 * MiB + 1)]:
        got = s3.get_object(Bucket=bucket, Key="big", Range=f"bytes={first}-{last}")
        assert got["Body"].read() == body[first : last + 1]
    part = s3.get_object(Bucket=bucket, Key="big", PartNumber=13)
    assert part["PartsCount"] == 13 and part["Body"].read() == body[96 * MiB :]
    listed = s3.list_objects_v2(Bucket=bucket)["Contents"][0]
    assert (listed["Size"], listed["ETag"]) == (len(body), head["ETag"])
    copied = s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "big"})
    assert copied["CopyObjectResult"]["ETag"]
    assert sha256(s3.get_object(Bucket=bucket, Key="copy")["Body"].read()) == sha256(body)


def test_parts_by_hand(s3, bucket, refused):
    parts = {1: payload(5 * MiB, 1), 2: payload(5 * MiB + 77, 2), 7: payload(123, 7)}
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k", Metadata={"a": "b"}, ContentType="text/plain")["UploadId"]
    where = dict(Bucket=bucket, Key="k", UploadId=upload)
    s3.upload_part(**where, PartNumber=2, Body=b"to be sent again")
    etags = {n: s3.upload_part(**where, PartNumber=n, Body=data)["ETag"] for n, data in parts.items()}
    refused("NoSuchKey", 404, s3.get_object, Bucket=bucket, Key="k")
    listed = s3.list_parts(**where)
    assert [(p["PartNumber"], p["Size"], p["ETag"]) for p in listed["Parts"]] == [(n, len(d), etags[n]) for n, d in parts.items()]
    assert [p["PartNumber"] for p in s3.list_parts(**where, MaxParts=1, PartNumberMarker=1)["Parts"]] == [2]
    assert [u["UploadId"] for u in s3.list_multipart_uploads(Bucket=bucket)["Uploads"]] == [upload]

    def complete(*numbers, tag=None):
        chosen = [{"PartNumber": n, "ETag": tag or etags[n]} for n in numbers]
        return s3.complete_multipart_upload(**where, MultipartUpload={"Parts": chosen})

    refused("InvalidPart", 400, complete, 1, tag='"00000000000000000000000000000000"')
    refused("InvalidPartOrder", 400, complete, 2, 1)
    done = complete(1, 2, 7)
    assert re.fullmatch(r'"[0-9a-f]{32}-3"', done["ETag"])
    got = s3.get_object(Bucket=bucket, Key="k")
    assert got["Body"].read() == b"".join(parts.values())
    assert got["Metadata"] == {"a": "b"} and got["ContentType"] == "text/plain"
    assert not s3.list_multipart_uploads(Bucket=bucket).get("Uploads")
    refused("NoSuchUpload", 404, s3.upload_part, **where, PartNumber=1, Body=b"late")


def test_a_small_part_that_is_not_the_last_is_refused(s3, bucket, refused):
    where = dict(Bucket=bucket, Key="k")
    where["UploadId"] = s3.create_multipart_upload(**where)["UploadId"]
    parts = [{"PartNumber": n, "ETag": s3.upload_part(**where, PartNumber=n, Body=b"x" * n)["ETag"]} for n in (1, 2)]
    refused("EntityTooSmall", 400, s3.complete_multipart_upload, **where, MultipartUpload={"Parts": parts})


def test_an_aborted_upload_is_gone(s3, bucket, refused):
    s3.put_object(Bucket=bucket, Key="k", Body=b"old")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    where = dict(Bucket=bucket, Key="k", UploadId=upload)
    s3.upload_part(**where, PartNumber=1, Body=payload(6 * MiB))
    assert s3.abort_multipart_upload(**where)["ResponseMetadata"]["HTTPStatusCode"] == 204
    refused("NoSuchUpload", 404, s3.list_parts, **where)
    refused("NoSuchUpload", 404, s3.abort_multipart_upload, **where)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"old"
    s3.delete_object(Bucket=bucket, Key="k")
    s3.delete_bucket(Bucket=bucket)


def test_parts_copied_from_objects(s3, bucket):
    source = payload(12 * MiB, "source")
    s3.put_object(Bucket=bucket, Key="source", Body=source)
    where = dict(Bucket=bucket, Key="k")
    where["UploadId"] = s3.create_multipart_upload(**where)["UploadId"]
    parts = []
    for number, (first, last) in enumerate([(0, 5 * MiB), (6 * MiB, 11 * MiB + 5)], 1):
        answer = s3.upload_part_copy(
            **where, PartNumber=number, CopySource={"Bucket": bucket, "Key": "source"}, CopySourceRange=f"bytes={first}-{last}"
        )
        parts.append({"PartNumber": number, "ETag": answer["CopyPartResult"]["ETag"]})
    s3.complete_multipart_upload(**where, MultipartUpload={"Parts": parts})
    expected = source[: 5 * MiB + 1] + source[6 * MiB : 11 * MiB + 6]
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == expected


# ---- several at once; a restart ---------------------------------------------------------------------


def test_many_clients_at_once(s3, bucket):
    def one(i):
        body = payload(1 + i * 3001, i)
        s3.put_object(Bucket=bucket, Key=f"k{i % 40}-{i}", Body=body)
        return s3.get_object(Bucket=bucket, Key=f"k{i % 40}-{i}")["Body"].read() == body

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert all(pool.map(one, range(160)))
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 160


def test_a_reader_keeps_what_it_opened(s3, bucket):
    old, new = payload(24 * MiB, "old"), payload(24 * MiB, "new")
    s3.put_object(Bucket=bucket, Key="k", Body=old)
    body = s3.get_object(Bucket=bucket, Key="k")["Body"]
    first = body.read(64 * KiB)
    s3.put_object(Bucket=bucket, Key="k", Body=new)
    s3.delete_object(Bucket=bucket, Key="k")
    assert first + body.read() == old


def test_everything_is_there_after_a_restart(server, s3, bucket):
    bodies = {f"k{n}": payload(n, n) for n in (0, 5, 70_000, 5 * MiB)}
    for key, body in bodies.items():
        s3.put_object(Bucket=bucket, Key=key, Body=body, Metadata={"n": key})
    before = server.credentials
    buckets = [b["Name"] for b in s3.list_buckets()["Buckets"]]
    server.restart()
    assert server.credentials == before
    assert [b["Name"] for b in s3.list_buckets()["Buckets"]] == buckets
    for key, body in bodies.items():
        got = s3.get_object(Bucket=bucket, Key=key)
        assert got["Body"].read() == body and got["Metadata"] == {"n": key}
    assert [o["Key"] for o in s3.list_objects_v2(Bucket=bucket)["Contents"]] == sorted(bodies)
