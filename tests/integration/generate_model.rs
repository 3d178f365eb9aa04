//! The generator of request tables, on a model that has one of everything.
#![allow(clippy::unwrap_used)]

#[path = "../src/bin/generate_model.rs"]
mod generate_model;

use generate_model::generate;
use serde_json::{Value, json};

fn model(protocol: &str) -> Value {
    json!({
        "metadata": {
            "apiVersion": "2026-01-01", "protocol": protocol, "serviceId": "Tea",
            "targetPrefix": "TeaService",
        },
        "operations": {
            "Pour": {"name": "Pour", "input": {"shape": "PourRequest"}, "documentation": "secret"},
            "Boil": {"name": "Boil"},
        },
        "shapes": {
            "PourRequest": {
                "type": "structure", "required": ["Cup"], "documentation": "secret",
                "members": {
                    "Cup": {"shape": "Cup", "locationName": "cup", "documentation": "secret"},
                    "Sugar": {"shape": "Sugar"},
                    "More": {"shape": "More"},
                    "Notes": {"shape": "Notes"},
                    "Until": {"shape": "Until"},
                    "Hot": {"shape": "Hot"},
                    "Weight": {"shape": "Weight"},
                    "Leaf": {"shape": "Leaf"},
                },
            },
            "Cup": {"type": "string", "min": 1, "max": 8, "pattern": "[\\w\"]+", "sensitive": true},
            "Sugar": {"type": "integer", "max": 3},
            "More": {"type": "list", "member": {"shape": "PourRequest"}, "max": 2},
            "Notes": {"type": "map", "key": {"shape": "Kind"}, "value": {"shape": "Looking"}},
            "Kind": {"type": "string", "enum": ["GREEN", "BLACK"]},
            "Looking": {"type": "string", "pattern": "(?!x).*"},
            "Until": {"type": "timestamp"},
            "Hot": {"type": "boolean"},
            "Weight": {"type": "double", "min": 1},
            "Leaf": {"type": "blob", "max": 5.0},
            "PourResponse": {"type": "structure", "members": {}},
        },
    })
}

#[test]
fn a_model_becomes_a_table_of_what_requests_hold_and_nothing_else() {
    let source = generate(&model("json"), None).unwrap();
    for line in [
        "//! The requests of Tea, 2026-01-01.",
        "    target_prefix: \"TeaService\",",
        "        model::Operation { name: \"Boil\", input: &model::Shape::structure(&[]) },\n        \
         model::Operation { name: \"Pour\", input: &PourRequest },",
        "    model::Member::required(\"cup\", &Cup),",
        "    model::Member::optional(\"Sugar\", &Sugar),",
        "static Cup: model::Shape = model::Shape::text(1, 8).pattern(regex!(r##\"[\\w\"]+\"##)).sensitive();",
        "static Sugar: model::Shape = model::Shape::integer(i64::MIN, 3);",
        "static More: model::Shape = model::Shape::list(&PourRequest, 0, 2);",
        "static Notes: model::Shape = model::Shape::map(&Kind, &Looking, 0, model::ANY);",
        "static Kind: model::Shape = model::Shape::text(0, model::ANY).words(&[\"GREEN\", \"BLACK\"]);",
        "// A pattern that is not checked here: (?!x).*\n\
         static Looking: model::Shape = model::Shape::text(0, model::ANY);",
        "static Until: model::Shape = model::Shape::timestamp();",
        "static Hot: model::Shape = model::Shape::boolean();",
        "static Weight: model::Shape = model::Shape::double(1.0, f64::MAX);",
        "static Leaf: model::Shape = model::Shape::blob(0, 5);",
    ] {
        assert!(source.contains(line), "{line} is not in\n{source}");
    }
    for never in ["secret", "PourResponse"] {
        assert!(!source.contains(never), "{never} is in\n{source}");
    }
}

#[test]
fn names_on_the_wire_are_the_protocols() {
    let ec2 = generate(&model("ec2"), None).unwrap();
    assert!(
        ec2.contains("model::Member::required(\"Cup\", &Cup)"),
        "{ec2}"
    );
    let query = generate(&model("query"), None).unwrap();
    assert!(
        query.contains("model::Member::required(\"cup\", &Cup)"),
        "{query}"
    );
}

#[test]
fn operations_can_be_chosen_and_must_be_there() {
    let source = generate(&model("json"), Some(&["Boil"])).unwrap();
    assert!(
        source.contains("\"Boil\"") && !source.contains("Pour"),
        "{source}"
    );
    assert!(generate(&model("json"), Some(&["Boil", "Stir"])).is_err());
}

#[test]
fn what_is_no_model_is_an_error() {
    for bad in [
        json!({}),
        json!({"operations": {"A": {"input": {"shape": "None"}}}}),
    ] {
        assert!(generate(&bad, None).is_err(), "{bad}");
    }
    let mut strange = model("json");
    strange["shapes"]["Hot"]["type"] = json!("tepid");
    assert!(generate(&strange, None).is_err());
}
