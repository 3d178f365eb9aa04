//! Every protocol's error body, in one place.
//!
//! | protocol | body | request id |
//! |---|---|---|
//! | JSON | `{"__type":CODE,"message":…}` | header `x-amzn-RequestId` |
//! | Query | `<ErrorResponse><Error><Type/><Code/><Message/></Error><RequestId/></ErrorResponse>` | body and header |
//! | EC2 | `<Response><Errors><Error><Code/><Message/></Error></Errors><RequestID/></Response>` | body and header |
//! | S3 | `<Error><Code/><Message/><RequestId/></Error>` | body and `x-amz-request-id` |
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use crate::{Protocol, xml::Xml};

pub(crate) const JSON: &str = "application/x-amz-json-1.1";
pub(crate) const XML: &str = "text/xml;charset=UTF-8";

static REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
static REQUEST_ID_OF_S3: HeaderName = HeaderName::from_static("x-amz-request-id");

/// The answer to a request that fails: also for what fails before a front is reached (a wrong
/// signature, a body too long, a service there is not).
pub fn refuse(
    protocol: Protocol,
    status: StatusCode,
    code: &str,
    message: &str,
    request_id: &str,
) -> Response<Bytes> {
    let error = |xml: &mut Xml, with_type: bool| {
        xml.element("Error", |xml| {
            if with_type {
                let at_fault = if status.is_server_error() {
                    "Receiver"
                } else {
                    "Sender"
                };
                xml.text("Type", at_fault);
            }
            xml.text("Code", code);
            xml.text("Message", message);
        });
    };
    let body = match protocol {
        Protocol::Json => serde_json::json!({ "__type": code, "message": message }).to_string(),
        Protocol::Query => {
            let mut xml = Xml::new();
            xml.element("ErrorResponse", |xml| {
                error(xml, true);
                xml.text("RequestId", request_id);
            });
            xml.finish()
        }
        Protocol::Ec2 => {
            let mut xml = Xml::new();
            xml.element("Response", |xml| {
                xml.element("Errors", |xml| error(xml, false));
                xml.text("RequestID", request_id);
            });
            xml.finish()
        }
        Protocol::S3 => {
            let mut xml = Xml::new();
            xml.element("Error", |xml| {
                xml.text("Code", code);
                xml.text("Message", message);
                xml.text("RequestId", request_id);
            });
            xml.finish()
        }
    };
    respond(protocol, status, request_id, body.into())
}

/// A response with the headers its protocol's clients expect.
pub(crate) fn respond(
    protocol: Protocol,
    status: StatusCode,
    request_id: &str,
    body: Bytes,
) -> Response<Bytes> {
    let (content_type, id_header) = match protocol {
        Protocol::Json => (JSON, &REQUEST_ID),
        Protocol::Query | Protocol::Ec2 => (XML, &REQUEST_ID),
        Protocol::S3 => ("application/xml", &REQUEST_ID_OF_S3),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    // A request id is ours and always fits; were it not, the answer goes without.
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(id_header, id);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(protocol: Protocol, status: StatusCode) -> String {
        let response = refuse(protocol, status, "Some.Code", "a <message>", "id-1");
        assert_eq!(response.status(), status);
        String::from_utf8(response.into_body().to_vec()).unwrap()
    }

    #[test]
    fn each_protocol_gets_its_own_envelope() {
        assert_eq!(
            body(Protocol::Json, StatusCode::BAD_REQUEST),
            r#"{"__type":"Some.Code","message":"a <message>"}"#
        );
        let after_declaration = |protocol| {
            body(protocol, StatusCode::BAD_REQUEST)
                .lines()
                .nth(1)
                .unwrap()
                .to_owned()
        };
        assert_eq!(
            after_declaration(Protocol::Query),
            "<ErrorResponse><Error><Type>Sender</Type><Code>Some.Code</Code>\
             <Message>a &lt;message&gt;</Message></Error><RequestId>id-1</RequestId></ErrorResponse>"
        );
        assert_eq!(
            after_declaration(Protocol::Ec2),
            "<Response><Errors><Error><Code>Some.Code</Code>\
             <Message>a &lt;message&gt;</Message></Error></Errors><RequestID>id-1</RequestID></Response>"
        );
        assert!(body(Protocol::Query, StatusCode::NOT_IMPLEMENTED).contains("Receiver"));
    }
}
