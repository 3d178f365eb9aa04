//! The holes of s3s that the front closes, each with its test.

use super::*;

#[tokio::test]
async fn an_unknown_sub_resource_does_not_overwrite_the_object() {
    let world = world().await;
    world.put("/buc/k", "before").send().await.expect(200);
    for query in [
        "encryption",
        "acl",
        "retention",
        "foo",
        "renameObject",
        "append",
        "tagging&acl",
    ] {
        let uri = format!("/buc/k?{query}");
        world
            .put(&uri, "<Xml/>")
            .send()
            .await
            .fails(501, "NotImplemented");
        world.get(&uri).send().await.fails(501, "NotImplemented");
        world.delete(&uri).send().await.fails(501, "NotImplemented");
        world
            .post(&uri, "<Xml/>")
            .send()
            .await
            .fails(501, "NotImplemented");
        assert_eq!(
            world.head(&uri).send().await.expect(501).body,
            Some(Bytes::new())
        );
    }
    assert_eq!(
        world.get("/buc/k").send().await.expect(200).text(),
        "before"
    );
    for query in ["policy", "lifecycle", "versions", "foo"] {
        let uri = format!("/buc?{query}");
        world
            .put(&uri, "<Xml/>")
            .send()
            .await
            .fails(501, "NotImplemented");
        world.get(&uri).send().await.fails(501, "NotImplemented");
        world.delete(&uri).send().await.fails(501, "NotImplemented");
    }
    world.head("/buc").send().await.expect(200);
}

#[tokio::test]
async fn headers_that_change_what_a_write_means_are_refused() {
    let world = world().await;
    for (name, value) in [
        ("x-amz-write-offset-bytes", "0"),
        ("x-amz-object-lock-mode", "COMPLIANCE"),
        ("x-amz-object-lock-legal-hold", "ON"),
        ("x-amz-rename-source", "buc/k"),
    ] {
        world
            .put("/buc/k", "x")
            .header(name, value)
            .send()
            .await
            .fails(501, "NotImplemented");
    }
    let acl = world
        .put("/buc/k", "x")
        .header("x-amz-acl", "public-read")
        .send()
        .await;
    acl.fails(400, "AccessControlListNotSupported");
    let class = world
        .put("/buc/k", "x")
        .header("x-amz-storage-class", "GLACIER")
        .send()
        .await;
    class.fails(400, "InvalidStorageClass");
    world.get("/buc/k").send().await.fails(404, "NoSuchKey");
    world
        .put("/buc/k", "x")
        .header("x-amz-acl", "private")
        .send()
        .await
        .expect(200);
}

#[tokio::test]
async fn a_form_is_refused_unread() {
    let world = world().await;
    let form = "--x\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nk\r\n--x--\r\n";
    let call = world
        .post("/buc", form)
        .header("content-type", "multipart/form-data; boundary=x");
    call.send().await.fails(501, "NotImplemented");
    assert_eq!(world.counts.requests.lock().last().unwrap().bytes_in, 0);
}

#[tokio::test]
async fn another_account_gets_nothing_done() {
    let world = world().await;
    world.put("/buc/k", "before").send().await.expect(200);
    let other = "222222222222";
    world
        .get("/buc/k")
        .account(other)
        .send()
        .await
        .fails(403, "AccessDenied");
    world
        .put("/buc/k", "x")
        .account(other)
        .send()
        .await
        .fails(403, "AccessDenied");
    world
        .delete("/buc/k")
        .account(other)
        .send()
        .await
        .fails(403, "AccessDenied");
    world
        .get("/buc?list-type=2")
        .account(other)
        .send()
        .await
        .fails(403, "AccessDenied");
    world
        .get("/")
        .account(other)
        .send()
        .await
        .fails(403, "AccessDenied");
    world
        .put("/ccc", "")
        .account(other)
        .send()
        .await
        .fails(403, "AccessDenied");
    let xml = "<Delete><Object><Key>k</Key></Object></Delete>";
    let answer = world
        .post("/buc?delete", xml)
        .account(other)
        .send()
        .await
        .expect(200);
    assert_eq!(answer.code(), "AccessDenied");
    let copy = world
        .put("/buc/c", "")
        .header("x-amz-copy-source", "buc/k")
        .account(other);
    copy.send().await.fails(403, "AccessDenied");
    assert_eq!(
        world.get("/buc/k").send().await.expect(200).text(),
        "before"
    );
    let owner = world
        .get("/buc/k")
        .header("x-amz-expected-bucket-owner", other)
        .send()
        .await;
    owner.fails(403, "AccessDenied");
}

#[tokio::test]
async fn signature_headers_and_parameters_do_not_disturb() {
    let world = world().await;
    world
        .put("/buc/k", "x")
        .header("authorization", "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0")
        .header("x-amz-date", "20260101T000000Z")
        .header("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
        .send()
        .await
        .expect(200);
    let uri = "/buc/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a&X-Amz-Date=d&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=0&x-id=GetObject";
    assert_eq!(world.get(uri).send().await.expect(200).text(), "x");
    // Signature Version 2 is nobody's here.
    let v2 = "/buc/k?AWSAccessKeyId=a&Signature=b&Expires=1";
    world.get(v2).send().await.fails(501, "NotImplemented");
}

#[tokio::test]
async fn only_the_version_null_exists() {
    let world = world().await;
    world.put("/buc/k", "x").send().await.expect(200);
    world.get("/buc/k?versionId=null").send().await.expect(200);
    world
        .get("/buc/k?versionId=1")
        .send()
        .await
        .fails(404, "NoSuchVersion");
    world
        .delete("/buc/k?versionId=1")
        .send()
        .await
        .fails(404, "NoSuchVersion");
    world.get("/buc/k").send().await.expect(200);
}

#[test]
fn a_refusal_before_the_front_is_xml_and_bodiless_for_head() {
    let refused = crate::refuse(
        &Method::GET,
        StatusCode::FORBIDDEN,
        "AccessDenied",
        "a<b",
        "R",
    );
    assert_eq!(refused.headers()["x-amz-request-id"], "R");
    let body = futures::executor::block_on(refused.into_body().collect())
        .unwrap()
        .to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert!(
        text.contains("<Code>AccessDenied</Code><Message>a&lt;b</Message>"),
        "{text}"
    );
    assert!(text.contains("<RequestId>R</RequestId>"), "{text}");
    let head = crate::refuse(
        &Method::HEAD,
        StatusCode::FORBIDDEN,
        "AccessDenied",
        "m",
        "R",
    );
    let body = futures::executor::block_on(head.into_body().collect())
        .unwrap()
        .to_bytes();
    assert!(body.is_empty());
}
