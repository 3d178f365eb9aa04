//! What is said of requests, on a model that has one of everything.
use super::{ANY, Member, Operation, Service, Shape, Wrong};
use crate::kms;

static NAME: Shape = Shape::text(2, 4).pattern(regex!(r"[a-z]\w*"));
static WORD: Shape = Shape::text(0, ANY).words(&["ONE", "TWO"]);
static LIMIT: Shape = Shape::integer(1, 10);
static SHARE: Shape = Shape::double(0.5, f64::MAX);
static PLAIN: Shape = Shape::blob(1, 3).sensitive();
static BLOB: Shape = Shape::blob(1, 3);
static PASSWORD: Shape = Shape::text(7, 32).pattern(regex!("[a-z]+")).sensitive();
static NAMES: Shape = Shape::list(&NAME, 0, 2);
static HIDDEN: Shape = Shape::list(&NAME, 0, 1).sensitive();
static CONTEXT: Shape = Shape::map(&NAME, &WORD, 0, 2);
static TAG: Shape = Shape::structure(&[
    Member::required("TagKey", &NAME),
    Member::optional("TagValue", &NAME),
]);
static TAGS: Shape = Shape::list(&TAG, 0, 1);
static FLAG: Shape = Shape::boolean();
static TIME: Shape = Shape::timestamp();
static INPUT: Shape = Shape::structure(&[
    Member::optional("Again", &INPUT),
    Member::optional("Blob", &BLOB),
    Member::optional("Context", &CONTEXT),
    Member::optional("Flag", &FLAG),
    Member::optional("Hidden", &HIDDEN),
    Member::required("KeyId", &NAME),
    Member::optional("Limit", &LIMIT),
    Member::optional("Names", &NAMES),
    Member::optional("Password", &PASSWORD),
    Member::optional("Plaintext", &PLAIN),
    Member::optional("Share", &SHARE),
    Member::optional("Tags", &TAGS),
    Member::optional("Time", &TIME),
    Member::optional("Word", &WORD),
]);
static POUR: Operation = Operation {
    name: "Pour",
    input: &INPUT,
};

fn invalid(body: &str) -> String {
    match POUR.check(body.as_bytes()) {
        Err(Wrong::Invalid(said)) => said,
        other => panic!("{body}: {other:?}"),
    }
}

fn malformed(body: &str) -> String {
    match POUR.check(body.as_bytes()) {
        Err(Wrong::Malformed(said)) => said,
        other => panic!("{body}: {other:?}"),
    }
}

/// With a key id that is right.
fn with(members: &str) -> String {
    format!(r#"{{"KeyId": "ab", {members}}}"#)
}

#[test]
fn what_keeps_its_bounds_passes() {
    for body in [
        r#"{"KeyId": "ab"}"#,
        "\n {\"KeyId\": \"ab\", \"Unknown\": {\"a\": [1, {}]}, \"Word\": null} ",
        r#"{"KeyId": "ab", "Limit": 10, "Share": 0.5, "Flag": false, "Time": 1.5, "Word": "TWO",
            "Names": ["ab", "abcd"], "Context": {"ab": "ONE", "cd": "TWO"}, "Blob": "\/\/\/\/",
            "Plaintext": "eA==", "Password": "sesame\u0061", "Tags": [{"TagKey": "ab"}],
            "Again": {"KeyId": "ab", "Again": null}}"#,
    ] {
        assert_eq!(POUR.check(body.as_bytes()), Ok(()), "{body}");
    }
}

#[test]
fn each_bound_is_said_in_awss_words() {
    const AT: &str = "failed to satisfy constraint: Member must";
    for (members, said) in [
        (r#""Limit": 0"#, format!("Value '0' at 'limit' {AT} have value greater than or equal to 1")),
        (r#""Limit": 11"#, format!("Value '11' at 'limit' {AT} have value less than or equal to 10")),
        (r#""Share": 0.25"#, format!("Value '0.25' at 'share' {AT} have value greater than or equal to 0.5")),
        (r#""Word": "three""#, format!("Value 'three' at 'word' {AT} satisfy enum value set: [ONE, TWO]")),
        (r#""Names": ["ab", "abcde"]"#, format!("Value 'abcde' at 'names.2.member' {AT} have length less than or equal to 4")),
        (r#""Names": ["ab", "A\u0042"]"#, format!("Value 'AB' at 'names.2.member' {AT} satisfy regular expression pattern: [a-z]\\w*")),
        (r#""Names": ["ab", "cd", "ef"]"#, format!("Value '[ab, cd, ef]' at 'names' {AT} have length less than or equal to 2")),
        (r#""Names": [null]"#, format!("Value null at 'names.1.member' {AT} not be null")),
        (r#""Tags": [{"TagKey": "ab", "TagValue": "x"}]"#, format!("Value 'x' at 'tags.1.member.tagValue' {AT} have length greater than or equal to 2")),
        (r#""Tags": [{"TagValue": "ab"}]"#, format!("Value null at 'tags.1.member.tagKey' {AT} not be null")),
        (r#""Context": {"ab": "x"}"#, format!("Value 'x' at 'context.ab.member' {AT} satisfy enum value set: [ONE, TWO]")),
        (r#""Context": {"abcde": "ONE"}"#, "Value 'abcde' at 'context' failed to satisfy constraint: Map keys must satisfy constraint: [Member must have length less than or equal to 4]".to_owned()),
        (r#""Blob": "eHh4eA==""#, format!("Value at 'blob' {AT} have length less than or equal to 3")),
        (r#""Plaintext": """#, format!("Value at 'plaintext' {AT} have length greater than or equal to 1")),
        (r#""Again": {}"#, format!("Value null at 'again.keyId' {AT} not be null")),
    ] {
        assert_eq!(invalid(&with(members)), format!("1 validation error detected: {said}"));
    }
    assert_eq!(
        invalid("{}"),
        "1 validation error detected: Value null at 'keyId' failed to satisfy constraint: Member must not be null"
    );
}

#[test]
fn several_are_counted_up_to_ten_and_joined() {
    let said = invalid(r#"{"Limit": 0, "Names": ["A"]}"#);
    assert_eq!(
        said,
        "4 validation errors detected: \
         Value null at 'keyId' failed to satisfy constraint: Member must not be null; \
         Value '0' at 'limit' failed to satisfy constraint: Member must have value greater than or equal to 1; \
         Value 'A' at 'names.1.member' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-z]\\w*; \
         Value 'A' at 'names.1.member' failed to satisfy constraint: Member must have length greater than or equal to 2"
    );
    let many = invalid(&with(&format!(
        r#""Names": [{}null]"#,
        r#""A","#.repeat(5000)
    )));
    assert!(many.starts_with("10 validation errors detected: "));
    assert!(many.len() < 2000, "{}", many.len());
}

#[test]
fn nothing_that_is_sensitive_is_shown() {
    for members in [
        r#""Password": "NEEDLE""#,
        r#""Password": "NEEDL\u0045""#,
        r#""Plaintext": "TkVFRExF""#,
        r#""Blob": "TkVFRExF""#,
        r#""Hidden": ["NEEDLE", "NEEDLE"]"#,
    ] {
        let said = invalid(&with(members));
        assert!(!said.contains("NEEDLE") && !said.contains("TkVF"), "{said}");
        assert!(said.contains("Value at '"), "{said}");
    }
}

#[test]
fn a_value_of_another_type_is_named_by_its_token_alone() {
    for (members, said) in [
        (
            r#""Word": 5"#,
            "NUMBER_VALUE can not be converted to a String",
        ),
        (
            r#""Word": true"#,
            "TRUE_VALUE can not be converted to a String",
        ),
        (r#""Word": []"#, "Start of list found where not expected"),
        (
            r#""Word": {}"#,
            "Start of structure or map found where not expected.",
        ),
        (
            r#""Limit": "NEEDLE""#,
            "STRING_VALUE can not be converted to an Integer",
        ),
        (
            r#""Limit": 1.5"#,
            "NUMBER_VALUE can not be converted to an Integer",
        ),
        (
            r#""Limit": 99999999999999999999"#,
            "NUMBER_VALUE can not be converted to an Integer",
        ),
        (
            r#""Flag": "true""#,
            "STRING_VALUE can not be converted to a Boolean",
        ),
        (
            r#""Time": "now""#,
            "STRING_VALUE can not be converted to a Timestamp",
        ),
        (
            r#""Share": false"#,
            "FALSE_VALUE can not be converted to a Double",
        ),
        (
            r#""Plaintext": 5"#,
            "NUMBER_VALUE can not be converted to a Blob",
        ),
        (
            r#""Plaintext": ["NEEDLE"]"#,
            "Start of list found where not expected",
        ),
        (
            r#""Password": {"a": "NEEDLE"}"#,
            "Start of structure or map found where not expected.",
        ),
        (
            r#""Password": true"#,
            "TRUE_VALUE can not be converted to a String",
        ),
        (
            r#""Plaintext": "NEEDLE""#,
            "A blob is not in base64, or not padded",
        ),
        (r#""Names": "NEEDLE""#, "Expected list or null"),
        (
            r#""Names": {}"#,
            "Start of structure or map found where not expected.",
        ),
        (r#""Context": 5"#, "Expected map or null"),
        (r#""Context": []"#, "Start of list found where not expected"),
        (r#""Again": "NEEDLE""#, "Expected structure or null"),
        (r#""KeyId": "cd""#, "duplicate member 'KeyId'"),
        (r#""Word": null, "Word": "ONE""#, "duplicate member 'Word'"),
        (
            r#""Tags": [{"TagKey": "ab", "TagKey": "ab"}]"#,
            "duplicate member 'TagKey'",
        ),
        (
            r#""Context": {"ab": "ONE", "\u0061b": "NEEDLE"}"#,
            "duplicate name in a map",
        ),
    ] {
        assert_eq!(malformed(&with(members)), said, "{members}");
    }
    for body in [
        "{",
        "null",
        "[]",
        "5",
        "\"x\"",
        "{} {}",
        "\u{feff}{}",
        r#"{"KeyId": "\ud800"}"#,
    ] {
        malformed(body);
    }
    let deep = with(&format!(r#""Unknown": {}"#, "[".repeat(100_000)));
    malformed(&deep);
    let deep = r#"{"Again": "#.repeat(100_000);
    malformed(&deep);
}

#[test]
fn a_type_is_found_wrong_before_any_bound() {
    malformed(r#"{"Limit": 0, "Word": 5}"#);
}

/// Calls `see` on a shape and all it is made of.
fn walk(shape: &'static Shape, seen: &mut Vec<*const Shape>, see: &mut impl FnMut(&'static Shape)) {
    if seen.contains(&std::ptr::from_ref(shape)) {
        return;
    }
    seen.push(shape);
    see(shape);
    match shape.kind {
        super::shape::Kind::Structure(members) => {
            for member in members {
                walk(member.shape, seen, see);
            }
        }
        super::shape::Kind::List(element, _) => walk(element, seen, see),
        super::shape::Kind::Map { key, value, .. } => {
            walk(key, seen, see);
            walk(value, seen, see);
        }
        _ => {}
    }
}

fn tables() -> [&'static Service; 1] {
    [kms::model()]
}

#[test]
fn every_operation_of_a_table_is_found_by_its_name() {
    for table in tables() {
        for operation in table.operations {
            let found = table.operation(operation.name).unwrap();
            assert!(std::ptr::eq(found, operation), "{}", operation.name);
        }
        assert!(table.operation("").is_none());
        assert!(table.operation("Nonsense").is_none());
    }
}

#[test]
fn every_pattern_of_a_table_can_be_kept() {
    let (mut seen, mut patterns) = (Vec::new(), 0);
    for table in tables() {
        for operation in table.operations {
            walk(operation.input, &mut seen, &mut |shape| {
                if let super::shape::Kind::Text {
                    pattern: Some(pattern),
                    ..
                } = shape.kind
                {
                    patterns += 1;
                    let anything = [
                        "a",
                        "A2",
                        "/kms/xks/v1",
                        "us-east-1",
                        "000000000000",
                        "a.b.c",
                    ];
                    let longer = [
                        "cluster-aaaaaaaaaaa",
                        "https://a",
                        "com.amazonaws.vpce.us-east-1.vpce-svc-0",
                        "arn:aws:s3:::",
                        "arn:aws:kms:r:000000000000:x",
                    ];
                    let mut samples = anything.into_iter().chain(longer);
                    assert!(samples.any(|sample| pattern.matches(sample)), "{pattern:?}");
                    assert!(!pattern.matches("\u{1F600}\n"), "{pattern:?}");
                }
            });
        }
    }
    assert!(patterns > 10, "{patterns}");
}
