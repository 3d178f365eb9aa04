use std::time::Duration;

use iam::Principal;
use serde_json::{Value, json};

use super::*;

const ID: &str = "job-00000000000000000000000000000001";
const ENDED: &str = "job-00000000000000000000000000000002";

/// Two jobs, of which one has ended.
struct Fake(Region);

fn job(id: &str) -> Job {
    Job {
        job_id: id.parse().unwrap(),
        kind: "reseal".to_owned(),
        principal: "sealgate.amazonaws.com".to_owned(),
        subject: "store-key".to_owned(),
        state: "RUNNING",
        reason: None,
        failures: 0,
        units_done: 7,
        units_total: None,
        creation_date: SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_042),
        last_updated_date: SystemTime::UNIX_EPOCH,
    }
}

#[async_trait]
impl Administration for Fake {
    fn region(&self) -> &Region {
        &self.0
    }

    async fn jobs(
        &self,
        _: Authorized<actions::ListJobs, EveryJob>,
        after: Option<JobId>,
        limit: usize,
    ) -> Result<JobPage, AdministrationError> {
        let ids = [ID, ENDED].into_iter();
        let after = after.map_or(String::new(), |id| id.to_string());
        let left: Vec<Job> = ids.filter(|id| **id > *after).map(job).collect();
        let next = (left.len() > limit).then(|| left[limit - 1].job_id.clone());
        Ok(JobPage {
            jobs: left.into_iter().take(limit).collect(),
            next,
        })
    }

    async fn job(
        &self,
        granted: Authorized<actions::DescribeJob, OneJob>,
    ) -> Result<Job, AdministrationError> {
        match granted.resource().id().as_str() {
            id @ (ID | ENDED) => Ok(job(id)),
            _ => Err(AdministrationError::NoSuchJob(
                granted.resource().id().clone(),
            )),
        }
    }

    async fn cancel_job(
        &self,
        granted: Authorized<actions::CancelJob, OneJob>,
    ) -> Result<(), AdministrationError> {
        match granted.resource().id() {
            id if id.as_str() == ENDED => Err(AdministrationError::Ended(id.clone())),
            _ => Ok(()),
        }
    }

    async fn root_key(
        &self,
        _: Authorized<actions::DescribeRootKey, RootKey>,
    ) -> Result<RootKeyStatus, AdministrationError> {
        Err(AdministrationError::Internal("a secret path".into()))
    }

    async fn rotate_store_key(
        &self,
        granted: Authorized<actions::RotateStoreKey, RootKey>,
    ) -> Result<JobId, AdministrationError> {
        let arn = granted.resource().arn().to_string();
        Err(AdministrationError::Unsupported(arn))
    }
}

async fn ask_as(account: &str, target: &str, body: &'static str) -> (Answer, Value) {
    let context = RequestContext::new(Principal::root(account.parse().unwrap()), "r-1");
    let (head, ()) = http::Request::builder()
        .method("POST")
        .uri("/")
        .header("content-type", "application/x-amz-json-1.1")
        .header("x-amz-target", target)
        .body(())
        .unwrap()
        .into_parts();
    let fake = Fake("us-east-1".parse().unwrap());
    let authorizer = Authorizer::new("123456789012".parse().unwrap());
    let body = Bytes::from_static(body.as_bytes());
    let answer = handle(&fake, &authorizer, &Arc::new(context), &head, body).await;
    let value = serde_json::from_slice(answer.response.body()).unwrap();
    (answer, value)
}

async fn ask(operation: &str, body: &'static str) -> (u16, Value) {
    let (answer, value) = ask_as("123456789012", &format!("Sealgate.{operation}"), body).await;
    assert_eq!(answer.operation, operation);
    (answer.response.status().as_u16(), value)
}

#[tokio::test]
async fn jobs_are_listed_page_by_page() {
    let (status, first) = ask("ListJobs", r#"{"Limit": 1}"#).await;
    assert_eq!((status, &first["Truncated"]), (200, &json!(true)));
    let expected = json!({
        "JobId": ID, "Kind": "reseal", "Principal": "sealgate.amazonaws.com", "Subject": "store-key",
        "State": "RUNNING", "Failures": 0, "UnitsDone": 7, "CreationDate": 1_800_000_000.042,
        "LastUpdatedDate": 0.0,
    });
    assert_eq!(first["Jobs"], json!([expected]));
    assert_eq!(first["NextMarker"], ID);
    let body = r#"{"Marker": "job-00000000000000000000000000000001"}"#;
    let (_, second) = ask("ListJobs", body).await;
    assert_eq!(second["Jobs"][0]["JobId"], ENDED);
    assert_eq!(second["Truncated"], false);
    assert_eq!(ask("ListJobs", "").await.1["Jobs"][1]["JobId"], ENDED);
}

#[tokio::test]
async fn what_goes_wrong_has_a_code_of_its_own() {
    let ended = r#"{"JobId": "job-00000000000000000000000000000002"}"#;
    let absent = r#"{"JobId": "job-00000000000000000000000000000003"}"#;
    for (operation, body, status, code) in [
        ("ListJobs", r#"{"Limit": 0}"#, 400, "ValidationException"),
        ("ListJobs", r#"{"Limit": 1001}"#, 400, "ValidationException"),
        ("ListJobs", r#"{"Marker": "x"}"#, 400, "ValidationException"),
        ("ListJobs", r#"{"Limt": 1}"#, 400, "SerializationException"),
        ("DescribeJob", "{}", 400, "SerializationException"),
        (
            "DescribeJob",
            r#"{"JobId": "job-1"}"#,
            400,
            "ValidationException",
        ),
        ("DescribeJob", absent, 400, "ResourceNotFoundException"),
        ("CancelJob", ended, 400, "ConflictException"),
        ("RotateStoreKey", "", 400, "UnsupportedOperationException"),
        ("DescribeRootKey", "{}", 500, "InternalServerException"),
    ] {
        let (found, answer) = ask(operation, body).await;
        assert_eq!((found, &answer["__type"]), (status, &json!(code)), "{body}");
        let message = answer["message"].as_str().unwrap();
        assert!(!message.contains("secret"), "{message}");
    }
    let (_, refused) = ask("RotateStoreKey", "").await;
    assert_eq!(
        refused["message"],
        "arn:aws:sealgate:us-east-1:123456789012:root-key"
    );
}

#[tokio::test]
async fn another_account_may_nothing_and_an_unknown_operation_is_none() {
    for (operation, body) in [
        ("ListJobs", ""),
        (
            "CancelJob",
            r#"{"JobId": "job-00000000000000000000000000000001"}"#,
        ),
        ("DescribeRootKey", ""),
        ("RotateStoreKey", ""),
    ] {
        let (_, answer) = ask_as("999999999999", &format!("Sealgate.{operation}"), body).await;
        assert_eq!(answer["__type"], "AccessDeniedException", "{operation}");
        let message = answer["message"].as_str().unwrap();
        assert!(
            message.contains(&format!("sealgate:{operation}")),
            "{message}"
        );
    }
    for target in ["Sealgate.Reboot", "TrentService.ListJobs", "ListJobs"] {
        let (answer, value) = ask_as("123456789012", target, "").await;
        assert_eq!(answer.operation, "unknown");
        assert_eq!(value["__type"], "UnknownOperationException", "{target}");
    }
}
