//! The check of a form (the Query protocols) against a model: what a request may name, what it must, and the bounds of
//! values that stand alone. Lists and structures are numbered and dotted names, which a front reads itself.
use super::{
    Operation,
    shape::{Kind, Member, Shape},
};
use crate::query::Form;

/// Names that belong to every request.
const EVERY: [&str; 2] = ["Action", "Version"];

/// What is wrong with a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WrongForm {
    /// A parameter that the model does not have; at most its first 64 characters.
    Unknown(String),
    /// A parameter that must be there and is not.
    Missing(&'static str),
    /// A value outside its bounds.
    Invalid {
        /// The parameter.
        name: &'static str,
        /// What was given.
        value: String,
        /// What it must be.
        why: String,
    },
}

impl Operation {
    /// Checks a form against the model.
    pub(crate) fn check_form(&self, form: &Form) -> Result<(), WrongForm> {
        let members = match self.input.kind {
            Kind::Structure(members) => members,
            _ => &[],
        };
        for name in form.names() {
            let base = name.split_once('.').map_or(name, |(base, _)| base);
            let known = members.iter().any(|member| member.name == base) || EVERY.contains(&base);
            if !known {
                return Err(WrongForm::Unknown(name.chars().take(64).collect()));
            }
        }
        members.iter().try_for_each(|member| check(member, form))
    }
}

fn check(member: &Member, form: &Form) -> Result<(), WrongForm> {
    let Some(value) = form.get(member.name) else {
        // A list or a structure has dots in its names.
        let plain = !matches!(
            member.shape.kind,
            Kind::Structure(_) | Kind::List(..) | Kind::Map { .. }
        );
        return match member.required && plain {
            true => Err(WrongForm::Missing(member.name)),
            false => Ok(()),
        };
    };
    match wrong(member.shape, value) {
        None => Ok(()),
        Some(why) => Err(WrongForm::Invalid {
            name: member.name,
            value: value.to_owned(),
            why,
        }),
    }
}

/// What a value that stands alone must be, if it is not.
fn wrong(shape: &Shape, value: &str) -> Option<String> {
    match shape.kind {
        Kind::Boolean => {
            let is = |word: &str| value.eq_ignore_ascii_case(word);
            (!is("true") && !is("false")).then(|| "It must be true or false.".to_owned())
        }
        Kind::Integer { min, max } => match value.parse::<i64>() {
            Ok(number) if (min..=max).contains(&number) => None,
            Ok(_) => Some(format!("It must be from {min} to {max}.")),
            Err(_) => Some("It must be a whole number.".to_owned()),
        },
        Kind::Text {
            length,
            pattern,
            words,
        } => {
            let len = value.chars().count() as u64;
            if len < length.min || len > length.max {
                let (min, max) = (length.min, length.max);
                return Some(format!("It must have from {min} to {max} characters."));
            }
            if !words.is_empty() && !words.contains(&value) {
                return Some(format!("It must be one of {}.", words.join(", ")));
            }
            (pattern.is_some_and(|pattern| !pattern.matches(value)))
                .then(|| "It has not the form that it must have.".to_owned())
        }
        // No service that takes forms and is served has another.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Member;
    use bytes::Bytes;

    static NAME: Shape = Shape::text(1, 4);
    static WORD: Shape = Shape::text(0, u64::MAX).words(&["gp2", "gp3"]);
    static COUNT: Shape = Shape::integer(1, 5);
    static DRY: Shape = Shape::boolean();
    static LIST: Shape = Shape::list(&NAME, 0, 9);
    static INPUT: Shape = Shape::structure(&[
        Member::optional("Count", &COUNT),
        Member::optional("DryRun", &DRY),
        Member::required("Id", &LIST),
        Member::required("Name", &NAME),
        Member::optional("Word", &WORD),
    ]);
    static OPERATION: Operation = Operation {
        name: "Pour",
        input: &INPUT,
    };

    fn checked(form: &'static str) -> Result<(), WrongForm> {
        let (head, ()) = http::Request::post("/").body(()).unwrap().into_parts();
        OPERATION.check_form(&Form::read(&head, &Bytes::from(form)).unwrap())
    }

    #[test]
    fn a_form_is_held_to_names_needs_and_bounds() {
        let good = "Action=Pour&Version=1&Name=tea&Id.1=a&Count=5&DryRun=TRUE&Word=gp2";
        assert_eq!(checked(good), Ok(()));
        let missing = Err(WrongForm::Missing("Name"));
        assert_eq!(checked("Count=1"), missing);
        assert_eq!(checked("Name="), missing);
        for (form, unknown) in [
            ("Name=a&Sugar=1", "Sugar"),
            ("Name=a&Sugar.1.Key=1", "Sugar.1.Key"),
        ] {
            assert_eq!(checked(form), Err(WrongForm::Unknown(unknown.to_owned())));
        }
        for (form, parameter) in [
            ("Name=green", "Name"),
            ("Name=a&Count=0", "Count"),
            ("Name=a&Count=6", "Count"),
            ("Name=a&Count=x", "Count"),
            ("Name=a&DryRun=yes", "DryRun"),
            ("Name=a&Word=gp4", "Word"),
        ] {
            let wrong = checked(form);
            assert!(
                matches!(wrong, Err(WrongForm::Invalid { name, .. }) if name == parameter),
                "{form}: {wrong:?}"
            );
        }
    }
}
