//! The commands besides `serve`: each a thin client of the running server.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cli::{JobCommand, KeyCommand, VolumeCommand};
use crate::client::Client;
use crate::config::Config;
use crate::data_dir::{Paths, Runtime};
use crate::output::{self, Format, print};

/// `sealgate env`: the lines to evaluate in a shell.
///
/// The secret itself stays in its file: an environment is readable by every child process.
pub(crate) fn env(config: &Config) -> anyhow::Result<()> {
    let dir = config.data_dir.canonicalize().with_context(|| {
        format!(
            "no data directory {}: start `sealgate serve`, or name one with --data-dir",
            config.data_dir.display()
        )
    })?;
    let (endpoint, region) = match Runtime::read(&dir) {
        Ok(runtime) => (runtime.aws, runtime.region),
        Err(_) => (
            format!("http://{}", config.aws.listen),
            config.regions.first().cloned().unwrap_or_default(),
        ),
    };
    let credentials = Paths(&dir).credentials();
    let (endpoint, region) = (quote(&endpoint), quote(&region));
    let credentials = quote(&credentials.to_string_lossy());
    // Variables win over files in every SDK, so a key left over in the environment would be used instead of ours.
    output::text(&format!(
        "unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN\n\
         export AWS_ENDPOINT_URL={endpoint}\n\
         export AWS_SHARED_CREDENTIALS_FILE={credentials}\n\
         export AWS_PROFILE=default\n\
         export AWS_REGION={region}\n\
         export AWS_DEFAULT_REGION={region}\n"
    ))
}

/// POSIX shell quoting.
pub(crate) fn quote(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:@%+=".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// `sealgate volume …`
pub(crate) async fn volume(
    data_dir: &Path,
    command: &VolumeCommand,
    format: Format,
) -> anyhow::Result<()> {
    let client = Client::open(data_dir)?;
    match command {
        VolumeCommand::Create {
            size,
            name,
            kms_key_id,
            unencrypted,
        } => {
            let mut parameters = vec![
                ("Size".to_owned(), size.to_string()),
                (
                    "AvailabilityZone".to_owned(),
                    format!("{}a", client.runtime().region),
                ),
                ("VolumeType".to_owned(), "gp3".to_owned()),
            ];
            // Without a word the account's default decides, as it does for every client.
            if *unencrypted || kms_key_id.is_some() {
                parameters.push(("Encrypted".to_owned(), (!*unencrypted).to_string()));
            }
            parameters.extend(
                kms_key_id
                    .iter()
                    .map(|key| ("KmsKeyId".to_owned(), key.clone())),
            );
            if let Some(name) = name {
                parameters.extend([
                    (
                        "TagSpecification.1.ResourceType".to_owned(),
                        "volume".to_owned(),
                    ),
                    ("TagSpecification.1.Tag.1.Key".to_owned(), "Name".to_owned()),
                    ("TagSpecification.1.Tag.1.Value".to_owned(), name.clone()),
                ]);
            }
            let xml = client.ec2("CreateVolume", &parameters).await?;
            let volume: Volume =
                quick_xml::de::from_str(&xml).context("the server's answer is not understood")?;
            if *unencrypted && volume.encrypted {
                eprintln!(
                    "sealgate: the volume is encrypted: encryption by default is enabled, and goes before --unencrypted"
                );
            }
            show_volumes(&client, &[volume], format)
        }
        VolumeCommand::List => {
            let volumes = all_volumes(&client).await?;
            show_volumes(&client, &volumes, format)
        }
        VolumeCommand::Check { .. } | VolumeCommand::Repair { .. } => {
            anyhow::bail!("this needs no server")
        }
        VolumeCommand::Delete { volume_id } => {
            client
                .ec2(
                    "DeleteVolume",
                    &[("VolumeId".to_owned(), volume_id.clone())],
                )
                .await?;
            print(
                format,
                &["DELETED"],
                &[vec![volume_id.clone()]],
                &json!({ "VolumeId": volume_id }),
            )
        }
    }
}

/// The parts of an EC2 `Volume` that the commands show. Names are those of the EC2 API.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all(deserialize = "camelCase", serialize = "PascalCase"))]
struct Volume {
    volume_id: String,
    size: u32,
    #[serde(alias = "status")]
    status: String,
    encrypted: bool,
    #[serde(default)]
    kms_key_id: Option<String>,
    #[serde(default)]
    tag_set: TagSet,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct TagSet {
    #[serde(default)]
    item: Vec<Tag>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all(deserialize = "camelCase", serialize = "PascalCase"))]
struct Tag {
    key: String,
    #[serde(default)]
    value: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DescribeVolumes {
    #[serde(default)]
    volume_set: VolumeSet,
    #[serde(default)]
    next_token: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct VolumeSet {
    #[serde(default)]
    item: Vec<Volume>,
}

async fn all_volumes(client: &Client) -> anyhow::Result<Vec<Volume>> {
    let (mut volumes, mut token) = (Vec::new(), None::<String>);
    loop {
        let parameters: Vec<_> = token
            .take()
            .map(|t| ("NextToken".to_owned(), t))
            .into_iter()
            .collect();
        let xml = client.ec2("DescribeVolumes", &parameters).await?;
        let page: DescribeVolumes =
            quick_xml::de::from_str(&xml).context("the server's answer is not understood")?;
        volumes.extend(page.volume_set.item);
        match page.next_token.filter(|t| !t.is_empty()) {
            Some(next) => token = Some(next),
            None => return Ok(volumes),
        }
    }
}

fn show_volumes(client: &Client, volumes: &[Volume], format: Format) -> anyhow::Result<()> {
    let socket = client.nbd_socket();
    let rows: Vec<Vec<String>> = volumes
        .iter()
        .map(|v| {
            let name = v
                .tag_set
                .item
                .iter()
                .find(|t| t.key == "Name")
                .map_or("-", |t| t.value.as_str());
            let uri = format!("nbd+unix:///{}?socket={}", v.volume_id, socket.display());
            let sealed = if v.encrypted { "sealed" } else { "plain" };
            vec![
                v.volume_id.clone(),
                name.into(),
                v.size.to_string(),
                v.status.clone(),
                sealed.into(),
                uri,
            ]
        })
        .collect();
    print(
        format,
        &["VOLUME", "NAME", "GIB", "STATE", "DATA", "URI"],
        &rows,
        &volumes,
    )
}

/// `sealgate key …`
pub(crate) async fn key(
    data_dir: &Path,
    command: &KeyCommand,
    format: Format,
) -> anyhow::Result<()> {
    let client = Client::open(data_dir)?;
    match command {
        KeyCommand::Create { description, alias } => {
            let answer = client
                .kms("CreateKey", &json!({ "Description": description }))
                .await?;
            let key = answer["KeyMetadata"].clone();
            let id = text(&key, "KeyId");
            let alias = alias.as_ref().map(|a| {
                if a.starts_with("alias/") {
                    a.clone()
                } else {
                    format!("alias/{a}")
                }
            });
            if let Some(alias) = &alias {
                let input = json!({ "AliasName": alias, "TargetKeyId": id });
                client
                    .kms("CreateAlias", &input)
                    .await
                    .with_context(|| format!("key {id} was created, but not its alias {alias}"))?;
            }
            let row = vec![
                id,
                alias.unwrap_or_else(|| "-".into()),
                text(&key, "KeyState"),
                text(&key, "Arn"),
            ];
            print(format, &KEY_HEADINGS, &[row], &key)
        }
        KeyCommand::List => {
            let keys = all_keys(&client).await?;
            let rows: Vec<Vec<String>> = keys
                .iter()
                .map(|(key, aliases)| {
                    let names = if aliases.is_empty() {
                        "-".into()
                    } else {
                        aliases.join(",")
                    };
                    vec![
                        text(key, "KeyId"),
                        names,
                        text(key, "KeyState"),
                        text(key, "Arn"),
                    ]
                })
                .collect();
            let document: Vec<Value> = keys
                .into_iter()
                .map(|(mut key, aliases)| {
                    key["Aliases"] = json!(aliases);
                    key
                })
                .collect();
            print(format, &KEY_HEADINGS, &rows, &document)
        }
    }
}

const KEY_HEADINGS: [&str; 4] = ["KEY", "ALIASES", "STATE", "ARN"];

async fn all_keys(client: &Client) -> anyhow::Result<Vec<(Value, Vec<String>)>> {
    let mut aliases = BTreeMap::<String, Vec<String>>::new();
    for alias in pages(client, "ListAliases", "Aliases").await? {
        aliases
            .entry(text(&alias, "TargetKeyId"))
            .or_default()
            .push(text(&alias, "AliasName"));
    }
    let mut keys = Vec::new();
    for key in pages(client, "ListKeys", "Keys").await? {
        let id = text(&key, "KeyId");
        let answer = client.kms("DescribeKey", &json!({ "KeyId": id })).await?;
        keys.push((
            answer["KeyMetadata"].clone(),
            aliases.remove(&id).unwrap_or_default(),
        ));
    }
    Ok(keys)
}

/// Every element of `list` over all pages of a KMS list operation.
async fn pages(client: &Client, operation: &str, list: &str) -> anyhow::Result<Vec<Value>> {
    let (mut all, mut input) = (Vec::new(), json!({}));
    loop {
        let mut answer = client.kms(operation, &input).await?;
        if let Value::Array(items) = answer[list].take() {
            all.extend(items);
        }
        match answer["NextMarker"].as_str() {
            Some(marker) if answer["Truncated"] == true => input = json!({ "Marker": marker }),
            _ => return Ok(all),
        }
    }
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}

/// `sealgate job …`
pub(crate) async fn job(
    data_dir: &Path,
    command: &JobCommand,
    format: Format,
) -> anyhow::Result<()> {
    let client = Client::open(data_dir)?;
    match command {
        JobCommand::List => {
            let (mut jobs, mut input) = (Vec::new(), json!({}));
            loop {
                let mut answer = client.sealgate("ListJobs", &input).await?;
                if let Value::Array(page) = answer["Jobs"].take() {
                    jobs.extend(page);
                }
                match answer["NextMarker"].as_str() {
                    Some(marker) => input = json!({ "Marker": marker }),
                    None => break,
                }
            }
            let rows: Vec<Vec<String>> = jobs.iter().map(job_row).collect();
            print(format, &JOB_HEADINGS, &rows, &jobs)
        }
        JobCommand::Cancel { job_id } => {
            let input = json!({ "JobId": job_id });
            client.sealgate("CancelJob", &input).await?;
            print(format, &["CANCELLED"], &[vec![job_id.clone()]], &input)
        }
    }
}

/// `sealgate root rotate --store-key`
pub(crate) async fn rotate_store_key(
    data_dir: &Path,
    wait: bool,
    format: Format,
) -> anyhow::Result<()> {
    let client = Client::open(data_dir)?;
    let mut input = client.sealgate("RotateStoreKey", &json!({})).await?;
    loop {
        let answer = client.sealgate("DescribeJob", &input).await?;
        let job = &answer["Job"];
        let state = text(job, "State");
        let ended = ["DONE", "FAILED", "CANCELLED"].contains(&state.as_str());
        if !wait || ended {
            print(format, &JOB_HEADINGS, &[job_row(job)], job)?;
            anyhow::ensure!(
                !ended || state == "DONE",
                "the store key is not rotated: {}",
                text(job, "Reason")
            );
            return Ok(());
        }
        input = json!({ "JobId": job["JobId"] });
        tokio::time::sleep(JOB_POLL_INTERVAL).await;
    }
}

/// How often it is asked whether a job has ended.
const JOB_POLL_INTERVAL: Duration = Duration::from_millis(500);

const JOB_HEADINGS: [&str; 6] = ["JOB", "KIND", "SUBJECT", "STATE", "DONE", "REASON"];

fn job_row(job: &Value) -> Vec<String> {
    let done = match (&job["UnitsDone"], &job["UnitsTotal"]) {
        (done, Value::Null) => done.to_string(),
        (done, total) => format!("{done}/{total}"),
    };
    let reason = job["Reason"].as_str().unwrap_or("-").to_owned();
    vec![
        text(job, "JobId"),
        text(job, "Kind"),
        text(job, "Subject"),
        text(job, "State"),
        done,
        reason,
    ]
}

/// `sealgate status`: fails unless the server is ready.
pub(crate) async fn status(data_dir: &Path, format: Format) -> anyhow::Result<()> {
    let client = Client::open(data_dir)?;
    let (code, why) = client.admin("/readyz").await?;
    anyhow::ensure!(code.is_success(), "the server is not ready: {}", why.trim());
    let volumes = all_volumes(&client).await?;
    let in_error = volumes.iter().filter(|v| v.status == "error").count();
    let volumes = volumes.len();
    let keys = pages(&client, "ListKeys", "Keys").await?.len();
    let runtime = client.runtime();
    let nbd = runtime
        .nbd_tcp
        .map_or_else(|| runtime.nbd_unix.display().to_string(), |a| a.to_string());
    let rows: Vec<Vec<String>> = [
        ("state", "ready".to_owned()),
        ("pid", runtime.pid.to_string()),
        ("aws", runtime.aws.clone()),
        ("nbd", nbd),
        ("admin", runtime.admin.clone()),
        (
            "volumes",
            match in_error {
                0 => volumes.to_string(),
                in_error => format!("{volumes}, {in_error} of them in error"),
            },
        ),
        ("keys", keys.to_string()),
    ]
    .map(|(name, value)| vec![name.to_owned(), value])
    .to_vec();
    let document = json!({ "State": "ready", "Runtime": runtime, "Volumes": volumes, "VolumesInError": in_error, "Keys": keys });
    print(format, &["WHAT", "VALUE"], &rows, &document)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn shell_quoting_survives_what_paths_may_hold() {
        assert_eq!(quote("/srv/a-b_c.d"), "/srv/a-b_c.d");
        assert_eq!(quote("/srv/it's here"), r"'/srv/it'\''s here'");
        assert_eq!(quote("$(reboot)"), "'$(reboot)'");
        assert_eq!(quote(""), "''");
    }

    #[test]
    fn an_ec2_answer_with_and_without_volumes_is_understood() {
        let xml = r#"<?xml version="1.0"?><DescribeVolumesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>r</requestId><volumeSet><item><volumeId>vol-1</volumeId><size>3</size><status>available</status><encrypted>true</encrypted><kmsKeyId>arn</kmsKeyId><tagSet><item><key>Name</key><value>db</value></item></tagSet></item><item><volumeId>vol-2</volumeId><size>3</size><status>available</status><encrypted>false</encrypted></item></volumeSet></DescribeVolumesResponse>"#;
        let page: DescribeVolumes = quick_xml::de::from_str(xml).unwrap();
        assert_eq!(page.volume_set.item.len(), 2);
        assert_eq!(page.volume_set.item[0].tag_set.item[0].value, "db");
        let xml = "<DescribeVolumesResponse><requestId>r</requestId><volumeSet/></DescribeVolumesResponse>";
        let page: DescribeVolumes = quick_xml::de::from_str(xml).unwrap();
        assert!(page.volume_set.item.is_empty() && page.next_token.is_none());
    }
}
