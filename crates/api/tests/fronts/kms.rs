//! KMS as an SDK sees it.
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::fixture::{ACCOUNT, Fixture};

async fn key(fixture: &Fixture) -> String {
    let created = fixture.kms("CreateKey", json!({"Description": "d"})).await;
    created["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_key_is_made_described_and_listed() {
    let fixture = Fixture::keyring().await;
    let created = fixture
        .kms(
            "CreateKey",
            json!({"Description": "mine", "Tags": [{"TagKey": "a", "TagValue": "b"}]}),
        )
        .await;
    let metadata = &created["KeyMetadata"];
    let id = metadata["KeyId"].as_str().unwrap();
    let arn = format!("arn:aws:kms:us-east-1:{ACCOUNT}:key/{id}");
    for (name, expected) in [
        ("AWSAccountId", json!(ACCOUNT)),
        ("Arn", json!(arn)),
        ("Enabled", json!(true)),
        ("Description", json!("mine")),
        ("KeyUsage", json!("ENCRYPT_DECRYPT")),
        ("KeyState", json!("Enabled")),
        ("Origin", json!("AWS_KMS")),
        ("KeyManager", json!("CUSTOMER")),
        ("KeySpec", json!("SYMMETRIC_DEFAULT")),
        ("CustomerMasterKeySpec", json!("SYMMETRIC_DEFAULT")),
        ("EncryptionAlgorithms", json!(["SYMMETRIC_DEFAULT"])),
        ("MultiRegion", json!(false)),
    ] {
        assert_eq!(metadata[name], expected, "{name}");
    }
    assert!(metadata["CreationDate"].as_f64().unwrap() > 1.7e9);
    assert_eq!(metadata.get("DeletionDate"), None);

    let described = fixture.kms("DescribeKey", json!({"KeyId": arn})).await;
    assert_eq!(&described["KeyMetadata"], metadata);
    let listed = fixture.kms("ListKeys", json!({})).await;
    assert_eq!(
        listed,
        json!({"Keys": [{"KeyId": id, "KeyArn": arn}], "Truncated": false})
    );
    let tags = fixture.kms("ListResourceTags", json!({"KeyId": id})).await;
    assert_eq!(
        tags,
        json!({"Tags": [{"TagKey": "a", "TagValue": "b"}], "Truncated": false})
    );
}

#[tokio::test]
async fn what_is_encrypted_decrypts_with_its_context_alone() {
    let fixture = Fixture::keyring().await;
    let id = key(&fixture).await;
    let sealed = fixture
        .kms(
            "Encrypt",
            json!({"KeyId": id, "Plaintext": STANDARD.encode("attack"), "EncryptionContext": {"a": "bc"}}),
        )
        .await;
    let arn = sealed["KeyId"].as_str().unwrap();
    assert!(arn.starts_with("arn:aws:kms:"));
    assert_eq!(sealed["EncryptionAlgorithm"], "SYMMETRIC_DEFAULT");
    let blob = &sealed["CiphertextBlob"];

    let opened = fixture
        .kms(
            "Decrypt",
            json!({"CiphertextBlob": blob, "EncryptionContext": {"a": "bc"}}),
        )
        .await;
    assert_eq!(opened["Plaintext"], STANDARD.encode("attack"));
    assert_eq!(opened["KeyId"], arn);
    assert_eq!(opened["KeyMaterialId"].as_str().unwrap().len(), 64);

    for context in [
        json!({"ab": "c"}),
        json!({"A": "bc"}),
        json!({}),
        json!({"a": "bc", "x": ""}),
    ] {
        let body = json!({"CiphertextBlob": blob, "EncryptionContext": context});
        assert_eq!(
            fixture.kms_error("Decrypt", body).await.0,
            "InvalidCiphertextException"
        );
    }
    let twice =
        format!(r#"{{"CiphertextBlob": {blob}, "EncryptionContext": {{"a": "x", "a": "bc"}}}}"#);
    assert_eq!(
        fixture.kms_error("Decrypt", twice).await.0,
        "SerializationException"
    );

    let other = key(&fixture).await;
    let wrong = json!({"CiphertextBlob": blob, "EncryptionContext": {"a": "bc"}, "KeyId": other});
    assert_eq!(
        fixture.kms_error("Decrypt", wrong).await.0,
        "IncorrectKeyException"
    );

    let resealed = fixture
        .kms(
            "ReEncrypt",
            json!({"CiphertextBlob": blob, "SourceEncryptionContext": {"a": "bc"},
                "DestinationKeyId": other, "DestinationEncryptionContext": {"d": "e"}}),
        )
        .await;
    assert_eq!(resealed["SourceKeyId"], arn);
    assert!(resealed["KeyId"].as_str().unwrap().ends_with(&other));
    let again =
        json!({"CiphertextBlob": resealed["CiphertextBlob"], "EncryptionContext": {"d": "e"}});
    assert_eq!(
        fixture.kms("Decrypt", again).await["Plaintext"],
        STANDARD.encode("attack")
    );
}

#[tokio::test]
async fn data_keys_and_random_bytes_have_the_length_asked_for() {
    let fixture = Fixture::keyring().await;
    let id = key(&fixture).await;
    for (ask, len) in [
        (json!({"KeyId": id, "KeySpec": "AES_256"}), 32),
        (json!({"KeyId": id, "KeySpec": "AES_128"}), 16),
        (json!({"KeyId": id, "NumberOfBytes": 64}), 64),
    ] {
        let data_key = fixture.kms("GenerateDataKey", ask.clone()).await;
        let plaintext = STANDARD
            .decode(data_key["Plaintext"].as_str().unwrap())
            .unwrap();
        assert_eq!(plaintext.len(), len);
        let opened = fixture
            .kms(
                "Decrypt",
                json!({"CiphertextBlob": data_key["CiphertextBlob"]}),
            )
            .await;
        assert_eq!(opened["Plaintext"], data_key["Plaintext"]);
        let wrapped = fixture.kms("GenerateDataKeyWithoutPlaintext", ask).await;
        assert_eq!(wrapped.get("Plaintext"), None);
    }
    for ask in [
        json!({"KeyId": id}),
        json!({"KeyId": id, "KeySpec": "AES_256", "NumberOfBytes": 32}),
    ] {
        let (code, message) = fixture.kms_error("GenerateDataKey", ask).await;
        assert_eq!(code, "ValidationException");
        assert_eq!(
            message,
            "Please specify either number of bytes or key spec."
        );
    }
    let random = fixture
        .kms("GenerateRandom", json!({"NumberOfBytes": 1024}))
        .await;
    assert_eq!(
        STANDARD
            .decode(random["Plaintext"].as_str().unwrap())
            .unwrap()
            .len(),
        1024
    );
}

#[tokio::test]
async fn a_disabled_key_does_nothing_until_it_is_enabled() {
    let fixture = Fixture::keyring().await;
    let id = key(&fixture).await;
    assert_eq!(
        fixture.kms("DisableKey", json!({"KeyId": id})).await,
        json!({})
    );
    let ask = json!({"KeyId": id, "KeySpec": "AES_256"});
    assert_eq!(
        fixture.kms_error("GenerateDataKey", &ask).await.0,
        "DisabledException"
    );
    let described = fixture.kms("DescribeKey", json!({"KeyId": id})).await;
    assert_eq!(described["KeyMetadata"]["Enabled"], false);
    fixture.kms("EnableKey", json!({"KeyId": id})).await;
    fixture.kms("GenerateDataKey", ask.clone()).await;

    let scheduled = fixture
        .kms(
            "ScheduleKeyDeletion",
            json!({"KeyId": id, "PendingWindowInDays": 7}),
        )
        .await;
    assert_eq!(scheduled["KeyState"], "PendingDeletion");
    assert_eq!(scheduled["PendingWindowInDays"], 7);
    assert!(scheduled["DeletionDate"].as_f64().unwrap() > 1.7e9);
    assert_eq!(
        fixture.kms_error("GenerateDataKey", &ask).await.0,
        "KMSInvalidStateException"
    );
    let cancelled = fixture.kms("CancelKeyDeletion", json!({"KeyId": id})).await;
    assert_eq!(cancelled["KeyId"], scheduled["KeyId"]);
}

#[tokio::test]
async fn an_alias_names_a_key_where_aws_takes_one() {
    let fixture = Fixture::keyring().await;
    let (one, two) = (key(&fixture).await, key(&fixture).await);
    let alias = json!({"AliasName": "alias/app", "TargetKeyId": one});
    assert_eq!(fixture.kms("CreateAlias", alias.clone()).await, json!({}));
    assert_eq!(
        fixture.kms_error("CreateAlias", alias).await.0,
        "AlreadyExistsException"
    );
    let listed = fixture.kms("ListAliases", json!({"KeyId": one})).await;
    let entry = &listed["Aliases"][0];
    assert_eq!(entry["AliasName"], "alias/app");
    assert_eq!(
        entry["AliasArn"],
        format!("arn:aws:kms:us-east-1:{ACCOUNT}:alias/app")
    );
    assert_eq!(entry["TargetKeyId"], one);

    let described = |name: &str| json!({"KeyId": name});
    let by_alias = fixture.kms("DescribeKey", described("alias/app")).await;
    assert_eq!(by_alias["KeyMetadata"]["KeyId"], one);
    fixture
        .kms(
            "UpdateAlias",
            json!({"AliasName": "alias/app", "TargetKeyId": two}),
        )
        .await;
    let by_alias = fixture.kms("DescribeKey", described("alias/app")).await;
    assert_eq!(by_alias["KeyMetadata"]["KeyId"], two);
    let refused = fixture
        .kms_error("DisableKey", described("alias/app"))
        .await;
    assert_eq!(
        refused.0, "NotFoundException",
        "an alias does not name a key to be changed"
    );
    fixture
        .kms("DeleteAlias", json!({"AliasName": "alias/app"}))
        .await;
    assert_eq!(
        fixture
            .kms_error("DescribeKey", described("alias/app"))
            .await
            .0,
        "NotFoundException"
    );

    let reserved = json!({"AliasName": "alias/aws/x", "TargetKeyId": one});
    let code = fixture.kms_error("CreateAlias", reserved).await.0;
    assert!(
        code == "NotAuthorizedException" || code == "InvalidAliasNameException",
        "{code}"
    );
    let bad = json!({"AliasName": "app", "TargetKeyId": one});
    fixture.kms_error("CreateAlias", bad).await;
}

#[tokio::test]
async fn rotation_keeps_what_was_sealed() {
    let fixture = Fixture::keyring().await;
    let id = key(&fixture).await;
    let sealed = fixture
        .kms(
            "Encrypt",
            json!({"KeyId": id, "Plaintext": STANDARD.encode("x")}),
        )
        .await;
    let rotated = fixture.kms("RotateKeyOnDemand", json!({"KeyId": id})).await;
    assert!(rotated["KeyId"].as_str().unwrap().ends_with(&id));
    let blob = json!({"CiphertextBlob": sealed["CiphertextBlob"]});
    assert_eq!(
        fixture.kms("Decrypt", blob).await["Plaintext"],
        STANDARD.encode("x")
    );

    let rotations = fixture.kms("ListKeyRotations", json!({"KeyId": id})).await;
    assert_eq!(
        rotations["Rotations"].as_array().unwrap().len(),
        1,
        "{rotations}"
    );
    assert_eq!(rotations["Rotations"][0]["RotationType"], "ON_DEMAND");

    let status = fixture
        .kms("GetKeyRotationStatus", json!({"KeyId": id}))
        .await;
    assert_eq!(status["KeyRotationEnabled"], false);
    fixture
        .kms(
            "EnableKeyRotation",
            json!({"KeyId": id, "RotationPeriodInDays": 180}),
        )
        .await;
    let status = fixture
        .kms("GetKeyRotationStatus", json!({"KeyId": id}))
        .await;
    assert_eq!(status["RotationPeriodInDays"], 180);
    assert!(status["NextRotationDate"].as_f64().is_some());
    fixture
        .kms("DisableKeyRotation", json!({"KeyId": id}))
        .await;
}

#[tokio::test]
async fn lists_come_in_pages() {
    let fixture = Fixture::keyring().await;
    for _ in 0..5 {
        key(&fixture).await;
    }
    let (mut seen, mut marker) = (Vec::new(), Value::Null);
    loop {
        let page = fixture
            .kms("ListKeys", json!({"Limit": 2, "Marker": marker}))
            .await;
        seen.extend(page["Keys"].as_array().unwrap().clone());
        assert_eq!(page["Truncated"], page.get("NextMarker").is_some());
        match page.get("NextMarker") {
            Some(next) => marker = next.clone(),
            None => break,
        }
    }
    seen.sort_by_key(Value::to_string);
    seen.dedup();
    assert_eq!(seen.len(), 5);
    let code = fixture
        .kms_error("ListKeys", json!({"Marker": "nonsense"}))
        .await
        .0;
    assert_eq!(code, "InvalidMarkerException");
}

#[tokio::test]
async fn bounds_are_kept_and_said_as_aws_says_them() {
    let fixture = Fixture::keyring().await;
    let id = key(&fixture).await;
    let long = STANDARD.encode([0; 4097]);
    for (operation, body, part) in [
        ("Encrypt", json!({"KeyId": id}), "Value null at 'plaintext'"),
        (
            "Encrypt",
            json!({"Plaintext": "eA=="}),
            "Value null at 'keyId'",
        ),
        (
            "Encrypt",
            json!({"KeyId": id, "Plaintext": ""}),
            "at 'plaintext' failed to satisfy constraint: Member must have length greater than or equal to 1",
        ),
        (
            "Encrypt",
            json!({"KeyId": id, "Plaintext": long}),
            "at 'plaintext' failed to satisfy constraint: Member must have length less than or equal to 4096",
        ),
        (
            "Encrypt",
            json!({"KeyId": id, "Plaintext": "eA==", "EncryptionContext": {"n": "v".repeat(8192)}}),
            "'encryptionContext'",
        ),
        (
            "Encrypt",
            json!({"KeyId": "", "Plaintext": "eA=="}),
            "'keyId'",
        ),
        ("Decrypt", json!({"CiphertextBlob": ""}), "'ciphertextBlob'"),
        (
            "GenerateRandom",
            json!({"NumberOfBytes": 0}),
            "Value '0' at 'numberOfBytes'",
        ),
        (
            "GenerateRandom",
            json!({"NumberOfBytes": 1025}),
            "Value '1025' at 'numberOfBytes'",
        ),
        ("GenerateRandom", json!({}), "NumberOfBytes is required."),
        (
            "Encrypt",
            json!({"EncryptionAlgorithm": "ROT13", "GrantTokens": vec!["t"; 11]}),
            "4 validation errors detected: Value 'ROT13' at 'encryptionAlgorithm' failed to satisfy constraint: \
             Member must satisfy enum value set: [SYMMETRIC_DEFAULT, RSAES_OAEP_SHA_1, RSAES_OAEP_SHA_256, SM2PKE]; \
             Value '[t, t, t, t, t, t, t, t, t, t, t]' at 'grantTokens' failed to satisfy constraint: \
             Member must have length less than or equal to 10; Value null at 'keyId' ",
        ),
        (
            "CreateAlias",
            json!({"AliasName": "alias/a b", "TargetKeyId": id}),
            "Value 'alias/a b' at 'aliasName' failed to satisfy constraint: Member must satisfy regular \
             expression pattern: ^[a-zA-Z0-9:/_-]+$",
        ),
        (
            "TagResource",
            json!({"KeyId": id, "Tags": [{"TagKey": "", "TagValue": ""}]}),
            "Value '' at 'tags.1.member.tagKey' failed",
        ),
        (
            "UntagResource",
            json!({"KeyId": id, "TagKeys": ["k".repeat(129)]}),
            "at 'tagKeys.1.member' failed to satisfy constraint: Member must have length less than or equal to 128",
        ),
        ("Decrypt", json!({}), "Value null at 'ciphertextBlob'"),
        (
            "ListAliases",
            json!({"Limit": 101}),
            "Value '101' at 'limit'",
        ),
        (
            "GenerateDataKey",
            json!({"KeyId": id, "KeySpec": "AES_512"}),
            "Member must satisfy enum value set",
        ),
        ("ListKeys", json!({"Limit": 0}), "Value '0' at 'limit'"),
        (
            "ListKeys",
            json!({"Limit": 1001}),
            "Value '1001' at 'limit'",
        ),
        (
            "ScheduleKeyDeletion",
            json!({"KeyId": id, "PendingWindowInDays": 6}),
            "'pendingWindowInDays'",
        ),
        (
            "EnableKeyRotation",
            json!({"KeyId": id, "RotationPeriodInDays": 89}),
            "'rotationPeriodInDays'",
        ),
        (
            "CreateAlias",
            json!({"AliasName": "alias/x"}),
            "'targetKeyId'",
        ),
    ] {
        let (code, message) = fixture.kms_error(operation, &body).await;
        assert_eq!(code, "ValidationException", "{operation} {body}: {message}");
        assert!(message.contains(part), "{operation} {body}: {message}");
    }
}

#[tokio::test]
async fn what_would_change_the_answer_and_is_not_done_is_refused() {
    let fixture = Fixture::keyring().await;
    let id = key(&fixture).await;
    for (operation, body, expected) in [
        (
            "CreateKey",
            json!({"KeySpec": "RSA_2048"}),
            "UnsupportedOperationException",
        ),
        (
            "CreateKey",
            json!({"KeyUsage": "SIGN_VERIFY"}),
            "UnsupportedOperationException",
        ),
        (
            "CreateKey",
            json!({"KeyUsage": "NONSENSE"}),
            "ValidationException",
        ),
        (
            "CreateKey",
            json!({"Origin": "EXTERNAL"}),
            "UnsupportedOperationException",
        ),
        (
            "CreateKey",
            json!({"MultiRegion": true}),
            "UnsupportedOperationException",
        ),
        (
            "CreateKey",
            json!({"Policy": "{}"}),
            "UnsupportedOperationException",
        ),
        (
            "GenerateDataKey",
            json!({"KeyId": id, "KeySpec": "AES_256", "Recipient": {}}),
            "UnsupportedOperationException",
        ),
        (
            "Encrypt",
            json!({"KeyId": id, "Plaintext": "eA==", "EncryptionAlgorithm": "RSAES_OAEP_SHA_1"}),
            "InvalidKeyUsageException",
        ),
        (
            "Encrypt",
            json!({"KeyId": id, "Plaintext": "eA==", "GrantTokens": ["t"]}),
            "InvalidGrantTokenException",
        ),
        (
            "Encrypt",
            json!({"KeyId": id, "Plaintext": "eA==", "DryRun": true}),
            "DryRunOperationException",
        ),
    ] {
        assert_eq!(
            fixture.kms_error(operation, &body).await.0,
            expected,
            "{operation} {body}"
        );
    }
}

#[tokio::test]
async fn json_is_read_strictly_and_unknown_members_are_not_minded() {
    let fixture = Fixture::keyring().await;
    let id = key(&fixture).await;
    for bad in [
        "{",
        "[]",
        r#"["alias/a", null]"#,
        "\"x\"",
        "{} {}",
        r#"{"KeyId": 5}"#,
        r#"{"KeyId": "a", "KeyId": "b"}"#,
        r#"{"KeyId": null, "KeyId": "b"}"#,
        "\u{feff}{}",
    ] {
        let (code, message) = fixture.kms_error("DescribeKey", bad).await;
        assert_eq!(code, "SerializationException", "{bad}: {message}");
    }
    fixture
        .kms("DescribeKey", json!({"KeyId": id, "Unknown": {"a": 1}}))
        .await;
    let empty = fixture.kms_raw("TrentService.ListKeys", "").await;
    assert_eq!(empty.response.status(), 200);
    // What a client wrote into the wrong member does not come back in a message.
    let body = json!({"KeyId": id, "NumberOfBytes": "c2VjcmV0"});
    let (_, message) = fixture.kms_error("GenerateDataKey", body).await;
    assert!(!message.contains("c2VjcmV0"), "{message}");
}

#[tokio::test]
async fn plaintext_may_come_with_escapes_and_is_never_told_back() {
    let fixture = Fixture::keyring().await;
    let id = key(&fixture).await;
    // "\/" is how PHP writes each slash of a base64 text.
    for plaintext in [r"Pz8\/", r"Pz8\u002f", r"\u0050z8/"] {
        let body = format!(r#"{{"KeyId": "{id}", "Plaintext": "{plaintext}"}}"#);
        let sealed = fixture.kms_raw("TrentService.Encrypt", body).await.response;
        assert_eq!(sealed.status(), 200, "{plaintext}");
        let sealed: Value = serde_json::from_slice(sealed.body()).unwrap();
        let blob = json!({"CiphertextBlob": sealed["CiphertextBlob"]});
        assert_eq!(fixture.kms("Decrypt", blob).await["Plaintext"], "Pz8/");
    }
    let long = STANDARD.encode("needle".repeat(1000));
    for plaintext in [long.as_str(), "bmVlZGxl*", "bmVlZGx"] {
        let body = json!({"KeyId": id, "Plaintext": plaintext});
        let (_, message) = fixture.kms_error("Encrypt", body).await;
        assert!(!message.contains("bmVlZGx"), "{message}");
    }
}

#[tokio::test]
async fn only_a_post_of_its_media_type_to_the_root_is_a_request() {
    let fixture = Fixture::keyring().await;
    let ask = async |method: &str, target: &str, content_types: &[&str]| {
        let mut head = http::Request::builder()
            .method(method)
            .uri(target)
            .header("x-amz-target", "TrentService.ListKeys");
        for content_type in content_types {
            head = head.header("content-type", *content_type);
        }
        let answer = fixture.kms_request(head, "{}").await;
        let body: Value = serde_json::from_slice(answer.response.body()).unwrap();
        (answer.response.status().as_u16(), body["__type"].clone())
    };
    let json = "application/x-amz-json-1.1";
    for content_type in [
        json,
        "application/x-amz-json-1.1; charset=utf-8",
        "Application/X-Amz-Json-1.1",
    ] {
        assert_eq!(
            ask("POST", "/", &[content_type]).await.0,
            200,
            "{content_type}"
        );
    }
    for (method, target, content_types) in [
        ("GET", "/", [json].as_slice()),
        ("PUT", "/", &[json]),
        ("POST", "/keys", &[json]),
        ("POST", "//", &[json]),
        ("POST", "/", &[]),
        ("POST", "/", &[json, json]),
        ("POST", "/", &["application/x-amz-json-1.0"]),
        ("POST", "/", &["application/json"]),
        ("POST", "/", &["application/x-www-form-urlencoded"]),
    ] {
        assert_eq!(
            ask(method, target, content_types).await,
            (404, json!("UnknownOperationException")),
            "{method} {target} {content_types:?}"
        );
    }
}

#[tokio::test]
async fn operations_that_are_not_there_are_told_from_those_that_never_were() {
    let fixture = Fixture::keyring().await;
    let sign = fixture.kms_raw("TrentService.Sign", "{}").await;
    assert_eq!(
        (sign.operation, sign.response.status().as_u16()),
        ("Sign", 501)
    );
    let body: Value = serde_json::from_slice(sign.response.body()).unwrap();
    assert_eq!(body["__type"], "NotImplementedException");
    for target in [
        "TrentService.Nonsense",
        "TrentService.",
        "Encrypt",
        "DynamoDB_20120810.ListTables",
    ] {
        let answer = fixture.kms_raw(target, "{}").await;
        assert_eq!(
            (answer.operation, answer.response.status().as_u16()),
            ("unknown", 400)
        );
        let body: Value = serde_json::from_slice(answer.response.body()).unwrap();
        assert_eq!(body["__type"], "UnknownOperationException");
    }
}

#[tokio::test]
async fn a_strange_principal_is_denied_everything() {
    let mut fixture = Fixture::keyring().await;
    let id = key(&fixture).await;
    fixture.account = "999999999999";
    for (operation, body) in [
        ("CreateKey", json!({})),
        ("ListKeys", json!({})),
        ("DescribeKey", json!({"KeyId": id})),
        (
            "GenerateDataKey",
            json!({"KeyId": id, "KeySpec": "AES_256"}),
        ),
        ("ScheduleKeyDeletion", json!({"KeyId": id})),
        ("GenerateRandom", json!({"NumberOfBytes": 8})),
    ] {
        let (code, message) = fixture.kms_error(operation, body).await;
        assert_eq!(code, "AccessDeniedException", "{operation}");
        assert!(
            message.contains("arn:aws:iam::999999999999:root"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_request_body_somebody_else_holds_is_left_alone() {
    let fixture = Fixture::keyring().await;
    let id = key(&fixture).await;
    let body = json!({"KeyId": id, "Plaintext": STANDARD.encode("needle")}).to_string();
    let held = bytes::Bytes::from(body);
    // A body is wiped after parsing, unless there is a second handle to it: then it is that
    // holder's, and must not change under it.
    let answer = fixture.kms_raw("TrentService.Encrypt", held.clone()).await;
    assert_eq!(answer.response.status(), 200);
    assert!(held.starts_with(b"{"));
}
