"""One endpoint, one verifier: who is let in, and by which form of signature."""

import urllib.parse
from datetime import timedelta

import pytest

from harness import ACCOUNT, Signed, http_get, parse_metrics, payload, presign

JSON = {"content-type": "application/x-amz-json-1.1", "x-amz-target": "TrentService.ListKeys"}
WHO = b"Action=GetCallerIdentity&Version=2011-06-15"
NO = (400, 401, 403)  # EC2 answers AuthFailure with 401
FORM = {"content-type": "application/x-www-form-urlencoded"}


def test_the_caller_is_the_root_user(server):
    identity = server.client("sts").get_caller_identity()
    assert identity["Account"] == ACCOUNT and identity["UserId"] == ACCOUNT
    assert identity["Arn"] == f"arn:aws:iam::{ACCOUNT}:root"


def test_the_service_is_the_one_that_was_signed_for(server):
    assert Signed(server, "POST", "/", headers=FORM, body=WHO, service="sts").send()[0] == 200
    assert Signed(server, "POST", "/", headers=JSON, body=b"{}", service="kms").send()[0] == 200
    assert Signed(server, "GET", "/", service="s3").send()[0] == 200
    # Signed for KMS, asking STS: it reaches KMS, which takes no form.
    status, _, answer = Signed(server, "POST", "/", headers=FORM, body=WHO, service="kms").send()
    assert status == 404 and b"UnknownOperationException" in answer
    status, _, answer = Signed(server, "POST", "/", headers=FORM, body=WHO, service="dynamodb").send()
    assert 400 <= status < 500 or status == 501, answer


@pytest.mark.parametrize("service, headers, body", [("s3", {}, b""), ("kms", JSON, b"{}"), ("sts", FORM, WHO), ("ec2", FORM, b"Action=DescribeVolumes&Version=2016-11-15")])
def test_what_is_not_signed_right_is_refused(server, service, headers, body):
    def ask(**bent):
        method = "GET" if service == "s3" else "POST"
        return Signed(server, method, "/", headers=headers, body=body, service=service, **bent)

    assert ask().send()[0] == 200
    assert ask(secret="x" * 40).send()[0] in NO
    for minutes in (-16, 16):
        status, _, answer = ask(skew=timedelta(minutes=minutes)).send()
        assert status in NO, (minutes, answer)
    for minutes in (-14, 14):
        assert ask(skew=timedelta(minutes=minutes)).send()[0] == 200, minutes
    assert ask(region="eu-central-1").send()[0] in NO
    assert ask(unsigned=("host",)).send()[0] in NO
    request = ask()
    request.headers["authorization"] = request.headers["authorization"].replace("Credential=", "Credential=AKIAAAAAAAAAAAAAAAAA")
    assert request.send()[0] in NO
    request = ask()
    request.headers["authorization"] = request.headers["authorization"][:-1] + ("0" if request.signature[-1] != "0" else "1")
    assert request.send()[0] in NO
    request = ask()
    del request.headers["authorization"]
    assert request.send()[0] in NO
    if body:
        assert ask().send(body=body + b" ")[0] in NO


def test_a_refusal_is_told_in_the_protocol_of_the_request(server):
    def said(headers, service=None, bend=lambda authorization: authorization, unsigned=False):
        request = Signed(server, "POST", "/", headers=headers, body=b"{}", service=service or "kms", secret="x" * 40)
        request.headers["authorization"] = bend(request.headers["authorization"])
        if unsigned:
            del request.headers["authorization"]
        status, answer_headers, answer = request.send()
        assert status in NO, answer
        return answer

    def cut(authorization):
        """The scope can be read, and nothing after it."""
        return authorization.split(",")[0]

    plain = {"content-type": "text/plain"}
    for bend in (str, cut):
        assert b'"__type"' in said(plain, "kms", bend)
        assert b"<ErrorResponse>" in said(plain, "sts", bend)
        assert b"<Response><Errors>" in said(JSON, "ec2", bend)
        assert b"<Error><Code>" in said(JSON, "s3", bend) and b"<ErrorResponse>" not in said(JSON, "s3", bend)
    assert b'"__type"' in said({"x-amz-target": "TrentService.ListKeys"}, unsigned=True)
    assert b'"__type"' in said({"content-type": "application/x-amz-json-1.1"}, unsigned=True)
    assert b"<ErrorResponse>" in said(FORM, unsigned=True)
    assert b"<Error><Code>AccessDenied" in said(plain, unsigned=True)


def test_s3_says_why(server):
    assert b"SignatureDoesNotMatch" in Signed(server, "GET", "/", secret="x" * 40).send()[2]
    assert b"RequestTimeTooSkewed" in Signed(server, "GET", "/", skew=timedelta(hours=1)).send()[2]
    assert b"AccessDenied" in http_get(server.endpoint + "/")[2]


def test_a_header_changed_or_added_after_signing_is_refused(server, s3, bucket):
    request = Signed(server, "PUT", f"/{bucket}/k", headers={"x-amz-meta-a": "1"}, body=b"x")
    assert request.send(x_amz_meta_a="2")[0] == 403
    # An x-amz header that was not signed could turn encryption off or copy another object.
    assert Signed(server, "PUT", f"/{bucket}/k", body=b"x").send(x_amz_meta_b="2")[0] == 403
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_signature_version_2_is_refused(server):
    old = server.client("s3", signature_version="s3")
    url = old.generate_presigned_url("list_buckets")
    assert "Signature=" in url and http_get(url)[0] in NO
    key, _ = server.credentials
    status, _, answer = http_get(server.endpoint + "/", headers={"authorization": f"AWS {key}:AAAA", "date": "Sun, 22 Nov 2026 00:00:00 GMT"})
    assert status in NO, answer


def presigner(server):
    return server.client("s3", signature_version="s3v4")


def test_presigned_urls(server, s3, bucket):
    signer = presigner(server)
    body = payload(100_000)
    put = signer.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "a b/ü"}, ExpiresIn=60)
    assert http_get(put, "PUT", body)[0] == 200
    get = signer.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a b/ü"}, ExpiresIn=60)
    status, headers, answer = http_get(get)
    assert status == 200 and answer == body
    status, headers, answer = http_get(get, headers={"range": "bytes=65530-65545"})
    assert status == 206 and answer == body[65530:65546]
    typed = signer.generate_presigned_url(
        "get_object", Params={"Bucket": bucket, "Key": "a b/ü", "ResponseContentType": "text/x", "ResponseCacheControl": "no-cache"}
    )
    assert http_get(typed)[1]["content-type"] == "text/x"
    assert http_get(get, "PUT", b"overwritten")[0] == 403
    assert http_get(get, "DELETE")[0] == 403
    assert http_get(get.replace("a%20b", "a%20c"))[0] == 403
    assert http_get(get + "&response-content-type=text/html")[0] == 403
    assert s3.get_object(Bucket=bucket, Key="a b/ü")["Body"].read() == body


def test_a_presigned_url_ends(server, s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"abc")

    def ask(age, expires):
        return http_get(presign(server, f"/{bucket}/k", timedelta(seconds=age), expires))

    assert ask(30, 60)[0] == 200
    assert ask(3600, 7200)[0] == 200
    status, _, answer = ask(90, 60)
    assert status == 403 and b"AccessDenied" in answer
    assert ask(-3600, 60)[0] == 403, "from the future"
    assert ask(0, 8 * 86400)[0] in NO, "longer than seven days"
    assert ask(0, -1)[0] in NO
    assert ask(0, "60&X-Amz-Expires=600")[0] in NO


def test_a_post_form_and_virtual_hosts_do_not_open_a_back_door(server, bucket):
    body = b"--x\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nk\r\n--x\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nabc\r\n--x--\r\n"
    status, _, answer = http_get(f"{server.endpoint}/{bucket}", "POST", body, {"content-type": "multipart/form-data; boundary=x"})
    assert status >= 400, answer
    status, _, _ = http_get(f"{server.endpoint}/k", headers={"host": f"{bucket}.s3.amazonaws.com"})
    assert status in (400, 403, 404)


def test_metrics_are_never_on_the_aws_port(server):
    for path in ("/metrics", "/healthz", "/readyz"):
        assert http_get(server.endpoint + path)[0] in (400, 403, 404)
    assert "AKIA" not in urllib.parse.quote(server.admin("/metrics")[1])


# ---- what a refusal leaves behind -------------------------------------------------------------------


FRONTS = [
    ("s3", {}, b"", "ListBuckets"), ("kms", JSON, b"{}", "ListKeys"), ("sts", FORM, WHO, "GetCallerIdentity"),
    ("ec2", FORM, b"Action=DescribeVolumes&Version=2016-11-15", "DescribeVolumes"),
]
SECRET = "wJalrXUtnFEMIKMDENGbPxRfiCYEXAMPLEKEYxxx"


@pytest.mark.parametrize("service, headers, body, operation", FRONTS, ids=[f[0] for f in FRONTS])
def test_a_refusal_leaves_a_line_a_metric_and_a_record(own_server, service, headers, body, operation):
    server = own_server.start()
    server.secret("a secret that was not taken", SECRET.encode())
    key = server.credentials[0]

    def ask(**bent):
        return Signed(server, "GET" if service == "s3" else "POST", "/", headers=headers, body=body, service=service, **bent)

    requests = {"wrong_signature": ask(secret=SECRET), "clock_skew": ask(skew=timedelta(minutes=30)), "unknown_access_key": ask()}
    unknown = requests["unknown_access_key"]
    unknown.headers["authorization"] = unknown.headers["authorization"].replace(key, "AKIAAAAAAAAAAAAAAAAA")
    for reason, request in requests.items():
        for _ in range(3):
            status, answer_headers, _ = request.send()
            assert status in NO
        # What a form asks is in its body, which is read only of a request that could be right.
        known = service in ("s3", "kms") or reason == "wrong_signature"
        labels = dict(front=service, operation=operation if known else "unknown", reason=reason)
        assert server.metric("sealgate_refusals_total", **labels) == 3, labels
        lines = [line for line in server.log_text().splitlines() if "refused" in line and reason in line]
        assert len(lines) == 1, "one line for a flood"
        shown = "AKIAAAAAAAAAAAAAAAAA" if reason == "unknown_access_key" else key
        assert "WARN" in lines[0] and "127.0.0.1" in lines[0] and shown in lines[0] and "request_id" in lines[0]
        assert request.signature not in server.log_text(), "a signature was logged"
    server.stop()
    # At the end what was not told is told, with its number.
    records = [r for r in server.audit_records() if r["principal"] == "unauthenticated"]
    assert sum(r.get("count", 1) for r in records) == 9
    assert {r["operation"] for r in records} <= {operation, "unknown"} and {r["source"] for r in records} == {"127.0.0.1"}
    assert all(r["outcome"] not in ("Success", "") and r["request_id"] for r in records)
    assert all(request.signature not in str(records) for request in requests.values())


def test_what_is_signed_right_and_refused_leaves_as_much(own_server):
    server = own_server.start()
    server.client("s3").create_bucket(Bucket="bucket")
    key = server.credentials[0]
    wrong = [
        ("kms", {**JSON, "x-amz-target": "TrentService.Encrypt"}, b'{"KeyId":""}', "Encrypt", "validation", "ValidationException"),
        ("kms", {**JSON, "x-amz-target": "TrentService.Invent"}, b"{}", "unknown", "unknown_operation", "UnknownOperationException"),
        ("ec2", FORM, b"Action=CreateVolume&Version=2016-11-15&Size=x&AvailabilityZone=us-east-1a", "CreateVolume", "validation", "InvalidParameterValue"),
        ("ec2", FORM, b"Action=Invent&Version=2016-11-15", "unknown", "unknown_operation", "InvalidAction"),
        ("sts", FORM, b"Action=Invent&Version=2011-06-15", "unknown", "unknown_operation", "InvalidAction"),
        ("iam", FORM, b"Action=ListUsers&Version=2010-05-08", "unknown", "not_implemented", "NotImplemented"),
    ]
    for service, headers, body, operation, reason, code in wrong:
        status, _, answer = Signed(server, "POST", "/", headers=headers, body=body, service=service).send()
        assert status >= 400 and code.encode() in answer, answer
        assert server.metric("sealgate_refusals_total", front=service, operation=operation, reason=reason) == 1, (service, operation)
    status, _, answer = Signed(server, "GET", "/bucket", query=[("list-type", "2"), ("max-keys", "x")], service="s3").send()
    assert status == 400, answer
    s3 = [labels for name, labels, _ in parse_metrics(server.admin("/metrics")[1]) if name == "sealgate_refusals_total" and labels["front"] == "s3"]
    assert [(labels["operation"], labels["reason"]) for labels in s3] == [("ListObjectsV2", "validation")]
    # How things are is no refusal.
    assert Signed(server, "GET", "/absent/key", service="s3").send()[0] == 404
    server.stop()
    records = [r for r in server.audit_records() if r["outcome"] not in ("Success", "Intended") and r.get("access_key") == key]
    assert sum(r.get("count", 1) for r in records) == len(wrong) + 1
    for _, _, _, operation, _, code in wrong:
        assert any(code == r["outcome"] for r in records), (operation, code)
