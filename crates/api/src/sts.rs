//! STS, Query, 2011-06-15: who am I.
//!
//! GetCallerIdentity needs no permission in AWS, so it asks for none: whoever could sign a request
//! may learn whose signature it was. Assuming roles comes with the policy language.
use bytes::Bytes;
use http::{StatusCode, request::Parts};
use iam::RequestContext;

use crate::{
    Answer, Protocol,
    error::{refuse, respond},
    query::Form,
    xml::Xml,
};

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";

/// The operations there are.
pub(crate) const OPERATIONS: [&str; 1] = ["GetCallerIdentity"];

/// The operations STS has and we do not.
pub(crate) const NOT_YET: [&str; 10] = [
    "AssumeRole",
    "AssumeRoleWithSAML",
    "AssumeRoleWithWebIdentity",
    "AssumeRoot",
    "DecodeAuthorizationMessage",
    "GetAccessKeyInfo",
    "GetDelegatedAccessToken",
    "GetFederationToken",
    "GetSessionToken",
    "GetWebIdentityToken",
];

/// Answers one request.
#[allow(clippy::unused_async)] // the other fronts wait, and the gateway treats them alike
pub async fn handle(context: &RequestContext, head: &Parts, body: Bytes) -> Answer {
    let id = context.request_id();
    let error = |operation, status, code, message: &str| Answer {
        operation,
        code: Some(code),
        response: refuse(Protocol::Query, status, code, message, id),
    };
    let form = match Form::read(head, &body) {
        Ok(form) => form,
        Err(wrong) => {
            return error(
                "unknown",
                StatusCode::BAD_REQUEST,
                "MalformedQueryString",
                &wrong.to_string(),
            );
        }
    };
    let action = form.get("Action").unwrap_or_default();
    if action == "GetCallerIdentity" {
        return Answer {
            operation: "GetCallerIdentity",
            code: None,
            response: identity(context),
        };
    }
    if let Some(operation) = NOT_YET.into_iter().find(|name| *name == action) {
        let message = format!("{operation} is not implemented by this gateway.");
        return error(
            operation,
            StatusCode::NOT_IMPLEMENTED,
            "NotImplemented",
            &message,
        );
    }
    let message = match action {
        "" => "The request lacks the parameter Action.".to_owned(),
        _ => format!(
            "Could not find operation {} for version 2011-06-15",
            action.chars().take(64).collect::<String>()
        ),
    };
    error(
        "unknown",
        StatusCode::BAD_REQUEST,
        "InvalidAction",
        &message,
    )
}

fn identity(context: &RequestContext) -> http::Response<Bytes> {
    let mut xml = Xml::new();
    xml.root("GetCallerIdentityResponse", NAMESPACE, |xml| {
        xml.element("GetCallerIdentityResult", |xml| {
            xml.text("Arn", context.principal_arn());
            xml.text("UserId", context.principal().user_id());
            xml.text("Account", context.principal().account());
        });
        xml.element("ResponseMetadata", |xml| {
            xml.text("RequestId", context.request_id())
        });
    });
    respond(
        Protocol::Query,
        StatusCode::OK,
        context.request_id(),
        xml.finish().into(),
    )
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use iam::Principal;

    use super::*;

    fn answer(method: &str, target: &str, body: &'static str) -> (Answer, String) {
        let principal = Principal::root("123456789012".parse().unwrap());
        let context = RequestContext::new(principal, "r-1");
        let (head, ()) = http::Request::builder()
            .method(method)
            .uri(target)
            .body(())
            .unwrap()
            .into_parts();
        let future = pin!(handle(&context, &head, Bytes::from_static(body.as_bytes())));
        let Poll::Ready(answer) = future.poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("nothing to wait for");
        };
        let text = String::from_utf8(answer.response.body().to_vec()).unwrap();
        (answer, text)
    }

    #[test]
    fn the_root_user_is_told_who_it_is_by_form_and_by_query() {
        let action = "Action=GetCallerIdentity&Version=2011-06-15";
        for (answer, text) in [
            answer("POST", "/", action),
            answer("GET", &format!("/?{action}&X-Amz-Date=x"), ""),
        ] {
            assert_eq!(answer.operation, "GetCallerIdentity");
            assert_eq!(answer.response.status(), 200);
            for part in [
                "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">",
                "<Arn>arn:aws:iam::123456789012:root</Arn>",
                "<UserId>123456789012</UserId>",
                "<Account>123456789012</Account>",
                "<RequestId>r-1</RequestId>",
            ] {
                assert!(text.contains(part), "{part} in {text}");
            }
        }
    }

    #[test]
    fn an_operation_we_lack_is_not_an_unknown_one() {
        let (answer_, text) = answer("POST", "/", "Action=AssumeRole");
        assert_eq!(
            (answer_.operation, answer_.response.status().as_u16()),
            ("AssumeRole", 501)
        );
        assert!(text.contains("<Code>NotImplemented</Code>"));
        let (answer_, text) = answer("POST", "/", "Action=NoSuch");
        assert_eq!(
            (answer_.operation, answer_.response.status().as_u16()),
            ("unknown", 400)
        );
        assert!(text.contains("<Code>InvalidAction</Code>"));
    }
}
