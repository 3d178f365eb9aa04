//! A handle in another process: this test binary runs itself and tells the child what to do, a line each way.
//!
//! Records are sealed by whoever commits them, and only `crypto` makes a `SealedRecord`; so what goes over is the
//! plaintext, and the child seals it anew. All tests have one key.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use catalogue::{
    Batch, Catalogue, CatalogueError, Changed, Changes, Expect, Key, Page, Record, Scope, Sequence,
    StoreId, Table, Write,
};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::fixture::{KEYS, VOLUMES, record_key, seal};

/// Names the file that the child is to open; without it, the test is the parent.
const PATH: &str = "CATALOGUE_CONFORMANCE_PATH";
/// The test that is the child's whole life.
const CHILD: &str = "process::a_handle_in_another_process_answers";
/// Before each line of ours, since the test runner writes lines of its own.
const MARK: &str = "@catalogue ";

type Answers = Arc<Mutex<HashMap<u64, oneshot::Sender<Value>>>>;

/// Passes every call on to a child process.
pub(crate) struct ProcessCatalogue {
    child: Mutex<Child>,
    to_child: Mutex<Option<ChildStdin>>,
    answers: Answers,
    next: AtomicU64,
}

impl ProcessCatalogue {
    /// Starts a process that opens `path`.
    pub(crate) fn start(path: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([CHILD, "--exact", "--nocapture", "--test-threads=1"])
            .env(PATH, path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = Answers::default();
        let (from_child, waiting) = (child.stdout.take().unwrap(), answers.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(from_child).lines() {
                let Ok(line) = line else { break };
                // The runner's own text may stand before it.
                let Some((_, answer)) = line.split_once(MARK) else {
                    continue;
                };
                let answer: Value = serde_json::from_str(answer).unwrap();
                let to = waiting
                    .lock()
                    .unwrap()
                    .remove(&answer["call"].as_u64().unwrap());
                if let Some(to) = to {
                    let _ = to.send(answer);
                }
            }
            // Nobody else will answer.
            waiting.lock().unwrap().clear();
        });
        Self {
            to_child: Mutex::new(child.stdin.take()),
            child: Mutex::new(child),
            answers,
            next: AtomicU64::new(0),
        }
    }

    /// Ends the process without a word, as a crash does.
    pub(crate) fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    async fn call(&self, mut request: Value) -> Result<Value, CatalogueError> {
        let call = self.next.fetch_add(1, Ordering::Relaxed);
        request["call"] = json!(call);
        let (reply, answer) = oneshot::channel();
        self.answers.lock().unwrap().insert(call, reply);
        {
            let mut to_child = self.to_child.lock().unwrap();
            writeln!(to_child.as_mut().unwrap(), "{request}").unwrap();
        }
        let answer = answer.await.expect("the child answers");
        match answer.get("error") {
            Some(error) => Err(read_error(error)),
            None => Ok(answer["ok"].clone()),
        }
    }
}

impl Drop for ProcessCatalogue {
    fn drop(&mut self) {
        // The end of its input is the end of the child.
        self.to_child.lock().unwrap().take();
        let _ = self.child.lock().unwrap().wait();
    }
}

#[async_trait]
impl Catalogue for ProcessCatalogue {
    async fn store_id(&self) -> Result<StoreId, CatalogueError> {
        let id = self.call(json!({ "do": "store_id" })).await?;
        Ok(StoreId(read_bytes(&id).try_into().unwrap()))
    }

    async fn get(&self, table: Table, key: &Key) -> Result<Option<Record>, CatalogueError> {
        let request = json!({ "do": "get", "table": table.name(), "key": write_key(key) });
        let found = self.call(request).await?;
        Ok((!found.is_null()).then(|| read_record(&found)))
    }

    async fn page(
        &self,
        table: Table,
        scope: Option<&Scope>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, CatalogueError> {
        let request = json!({
            "do": "page", "table": table.name(), "limit": limit,
            "scope": scope.map(|scope| json!([scope.account, scope.region])),
            "after": after.map(write_key),
        });
        let page = self.call(request).await?;
        let records = page["records"].as_array().unwrap();
        Ok(Page {
            records: records.iter().map(read_record).collect(),
            next: (!page["next"].is_null()).then(|| read_key(&page["next"])),
        })
    }

    async fn commit(&self, batch: Batch) -> Result<Sequence, CatalogueError> {
        let writes: Vec<Value> = batch.writes().iter().map(write_write).collect();
        self.call(json!({ "do": "commit", "writes": writes }))
            .await
            .map(|n| sequence(&n))
    }

    async fn sequence(&self) -> Result<Sequence, CatalogueError> {
        self.call(json!({ "do": "sequence" }))
            .await
            .map(|n| sequence(&n))
    }

    async fn changes(&self, after: Sequence, limit: usize) -> Result<Changes, CatalogueError> {
        let request = json!({ "do": "changes", "after": after.0, "limit": limit });
        let found = self.call(request).await?;
        let changes = found["changes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|change| Changed {
                sequence: sequence(&change[0]),
                table: change[1].as_str().unwrap().to_owned(),
                key: read_key(&change[2]),
                version: change[3].as_u64(),
            });
        Ok(Changes {
            changes: changes.collect(),
            upto: sequence(&found["upto"]),
        })
    }

    async fn wait(&self, after: Sequence) -> Result<Sequence, CatalogueError> {
        self.call(json!({ "do": "wait", "after": after.0 }))
            .await
            .map(|n| sequence(&n))
    }

    async fn purge(&self) -> Result<(), CatalogueError> {
        self.call(json!({ "do": "purge" })).await.map(drop)
    }
}

/// Parent: starts itself and asks. Child: answers until its input ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handle_in_another_process_answers() {
    let Some(path) = std::env::var_os(PATH) else {
        let dir = tempfile::tempdir().unwrap();
        let child = ProcessCatalogue::start(&dir.path().join("catalogue.db"));
        assert_eq!(child.sequence().await.unwrap(), Sequence(0));
        return;
    };
    let handle = crate::sqlite(crate::options(Path::new(&path)));
    let (lines, mut requests) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            if lines.send(line.unwrap()).is_err() {
                return;
            }
        }
    });
    while let Some(request) = requests.recv().await {
        let request: Value = serde_json::from_str(&request).unwrap();
        let handle = handle.clone();
        tokio::spawn(async move {
            let answer = match serve(&*handle, &request).await {
                Ok(ok) => json!({ "call": request["call"], "ok": ok }),
                Err(error) => json!({ "call": request["call"], "error": write_error(&error) }),
            };
            // One write, so that lines do not mix.
            let line = format!("{MARK}{answer}\n");
            let _ = std::io::stdout().lock().write_all(line.as_bytes());
        });
    }
}

async fn serve(handle: &dyn Catalogue, request: &Value) -> Result<Value, CatalogueError> {
    let number = |name: &str| request[name].as_u64().unwrap();
    let limit = || usize::try_from(number("limit")).unwrap();
    Ok(match request["do"].as_str().unwrap() {
        "store_id" => write_bytes(&handle.store_id().await?.0),
        "get" => {
            let found = handle
                .get(table(&request["table"]), &read_key(&request["key"]))
                .await?;
            json!(found.as_ref().map(write_record))
        }
        "page" => {
            let scope = request["scope"].as_array().map(|parts| read_scope(parts));
            let after = (!request["after"].is_null()).then(|| read_key(&request["after"]));
            let table = table(&request["table"]);
            let page = handle
                .page(table, scope.as_ref(), after.as_ref(), limit())
                .await?;
            let records: Vec<_> = page.records.iter().map(write_record).collect();
            json!({ "records": records, "next": page.next.as_ref().map(write_key) })
        }
        "commit" => {
            let mut batch = Batch::new();
            for write in request["writes"].as_array().unwrap() {
                batch.push(read_write(write));
            }
            json!(handle.commit(batch).await?.0)
        }
        "sequence" => json!(handle.sequence().await?.0),
        "changes" => {
            let found = handle.changes(Sequence(number("after")), limit()).await?;
            let changes: Vec<_> = found
                .changes
                .iter()
                .map(|c| json!([c.sequence.0, c.table, write_key(&c.key), c.version]))
                .collect();
            json!({ "changes": changes, "upto": found.upto.0 })
        }
        "wait" => json!(handle.wait(Sequence(number("after"))).await?.0),
        "purge" => {
            handle.purge().await?;
            Value::Null
        }
        other => panic!("no call {other}"),
    })
}

fn table(name: &Value) -> Table {
    let name = name.as_str().unwrap();
    [KEYS, VOLUMES]
        .into_iter()
        .find(|table| table.name() == name)
        .unwrap()
}

fn sequence(number: &Value) -> Sequence {
    Sequence(number.as_u64().unwrap())
}

fn write_bytes(bytes: &[u8]) -> Value {
    json!(BASE64_STANDARD.encode(bytes))
}

fn read_bytes(text: &Value) -> Vec<u8> {
    BASE64_STANDARD.decode(text.as_str().unwrap()).unwrap()
}

fn read_scope(parts: &[Value]) -> Scope {
    Scope {
        account: parts[0].as_str().unwrap().to_owned(),
        region: parts[1].as_str().unwrap().to_owned(),
    }
}

fn write_key(key: &Key) -> Value {
    json!([key.scope.account, key.scope.region, write_bytes(&key.id)])
}

fn read_key(key: &Value) -> Key {
    let parts = key.as_array().unwrap();
    Key::new(read_scope(parts), read_bytes(&parts[2]))
}

fn write_record(record: &Record) -> Value {
    json!([
        write_key(&record.key),
        record.version,
        write_bytes(&record.sealed)
    ])
}

fn read_record(record: &Value) -> Record {
    Record {
        key: read_key(&record[0]),
        version: record[1].as_u64().unwrap(),
        sealed: read_bytes(&record[2]),
    }
}

fn write_write(write: &Write) -> Value {
    let (table, key) = write.target();
    let expect = match write.expect() {
        Expect::Absent => Value::Null,
        Expect::Version(version) => json!(version),
    };
    let (what, plaintext) = match write {
        Write::Put { record, expect, .. } => {
            let place = key.place(table, expect.next_version());
            let opened = record_key().open_at(&place, record.as_bytes()).unwrap();
            ("put", write_bytes(opened.expose()))
        }
        Write::Erase { .. } => ("erase", Value::Null),
        Write::Check { .. } => ("check", Value::Null),
    };
    json!([what, table.name(), write_key(key), expect, plaintext])
}

fn read_write(write: &Value) -> Write {
    let (table, key) = (table(&write[1]), read_key(&write[2]));
    let expect = write[3].as_u64().map_or(Expect::Absent, Expect::Version);
    match write[0].as_str().unwrap() {
        "put" => {
            let record = seal(table, &key, expect, &read_bytes(&write[4]));
            Write::Put {
                table,
                key,
                expect,
                record,
            }
        }
        "erase" => Write::Erase {
            table,
            key,
            version: write[3].as_u64().unwrap(),
        },
        _ => Write::Check { table, key, expect },
    }
}

fn write_error(error: &CatalogueError) -> Value {
    match error {
        CatalogueError::Conflict { table, key } => {
            json!(["conflict", table.name(), write_key(key)])
        }
        CatalogueError::Invalid(why) => json!(["invalid", why]),
        CatalogueError::Trimmed => json!(["trimmed"]),
        other => json!(["other", other.to_string()]),
    }
}

fn read_error(error: &Value) -> CatalogueError {
    match error[0].as_str().unwrap() {
        "conflict" => CatalogueError::Conflict {
            table: table(&error[1]),
            key: read_key(&error[2]),
        },
        "invalid" => CatalogueError::Invalid("the child says so"),
        "trimmed" => CatalogueError::Trimmed,
        _ => panic!("the child failed: {error}"),
    }
}
