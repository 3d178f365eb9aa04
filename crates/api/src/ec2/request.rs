//! One EC2 request on its way: its parameters, the permission it asks for, the document that answers it.
use iam::{Action, Authorized, Authorizer, Caller, Region, Resource};
use volume::Volumes;

use super::{fault::Fault, model};
use crate::{query::Form, xml::Xml};

const NAMESPACE: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";

/// One request on its way.
pub(super) struct Request<'a> {
    pub(super) volumes: &'a Volumes,
    pub(super) authorizer: &'a Authorizer,
    /// All that are served.
    pub(super) regions: &'a [Region],
    pub(super) caller: Caller<'a>,
    /// The `Host` the client called.
    pub(super) host: &'a str,
    pub(super) form: Form,
}

impl Request<'_> {
    /// The permission to do `A`, or the answer to a dry run of it.
    pub(super) fn authorize<A: Action, R: Resource>(
        &self,
        resource: R,
    ) -> Result<Authorized<A, R>, Fault> {
        let authorized = self.authorizer.authorize(self.caller, resource)?;
        match self.flag("DryRun")? {
            Some(true) => Err(Fault::DryRun),
            _ => Ok(authorized),
        }
    }

    /// Checks the form against the public model of `operation`, which is in the table.
    pub(super) fn check(&self, operation: &str) -> Result<(), Fault> {
        let operation = model::SERVICE.operation(operation);
        let operation = operation.ok_or_else(|| Fault::InvalidAction(String::new()))?;
        Ok(operation.check_form(&self.form)?)
    }

    /// Refuses parameters that are neither named here, nor elements of a list named here, nor
    /// common to all operations.
    pub(super) fn takes(&self, names: &[&str]) -> Result<(), Fault> {
        let common = ["Action", "Version", "DryRun"];
        match self.form.names().find(|name| {
            let base = name.split_once('.').map_or(*name, |(base, _)| base);
            !names.contains(&base) && !common.contains(&base)
        }) {
            Some(unknown) => Err(Fault::UnknownParameter(unknown.chars().take(64).collect())),
            None => Ok(()),
        }
    }

    /// Refuses parameters that EC2 takes and we cannot honour.
    pub(super) fn lacks(&self, names: &[&'static str]) -> Result<(), Fault> {
        let base = |name: &str| {
            name.split_once('.')
                .map_or(name, |(base, _)| base)
                .to_owned()
        };
        match names
            .iter()
            .find(|unsupported| self.form.names().any(|name| base(name) == **unsupported))
        {
            Some(name) => Err(Fault::Unsupported(name)),
            None => Ok(()),
        }
    }

    pub(super) fn flag(&self, name: &'static str) -> Result<Option<bool>, Fault> {
        match self.form.get(name) {
            None => Ok(None),
            Some(value) if value.eq_ignore_ascii_case("true") => Ok(Some(true)),
            Some(value) if value.eq_ignore_ascii_case("false") => Ok(Some(false)),
            Some(value) => Err(Fault::invalid(name, value, "It must be true or false.")),
        }
    }

    pub(super) fn number(&self, name: &'static str) -> Result<Option<u64>, Fault> {
        self.form
            .get(name)
            .map(|value| {
                let digits = value.bytes().all(|b| b.is_ascii_digit());
                (digits.then_some(value))
                    .and_then(|value| value.parse().ok())
                    .ok_or_else(|| Fault::invalid(name, value, "It must be a whole number."))
            })
            .transpose()
    }

    pub(super) fn required(&self, name: &'static str) -> Result<&str, Fault> {
        self.form.get(name).ok_or(Fault::MissingParameter(name))
    }

    /// A document of one operation's answer.
    pub(super) fn answer(&self, name: &str, content: impl FnOnce(&mut Xml)) -> String {
        let mut xml = Xml::new();
        xml.root(name, NAMESPACE, |xml| {
            xml.text("requestId", self.caller.request_id());
            content(xml);
        });
        xml.finish()
    }
}
