//! Beside locks, elections, counters and barriers of other languages: the real Curator, kazoo and
//! ZooKeeper's own recipes in processes of their own, and go-zookeeper's lock rebuilt on our client.
//!
//! A referee that knows no server sees whether two are ever inside together.

mod contender;
mod deaths;
mod go;
mod ours;
mod program;
mod referee;
mod shared;
mod succession;
mod table;
mod together;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use quorate_client::{Client, ClientBuilder};
use quorate_tests::java::Classes;
use quorate_tests::skip::{Need, available};
use tempfile::TempDir;

use self::contender::{Contender, STEP_LIMIT};
use self::go::GoLock;
use self::ours::{Candidate, Lock};
use self::program::Program;
use crate::Scene;

const JARS: &[&str] = &[
    "zookeeper",
    "zookeeper-jute",
    "zookeeper-recipes-lock",
    "zookeeper-recipes-election",
    "curator-client",
    "curator-framework",
    "curator-recipes",
    "guava",
    "slf4j-simple",
];
const NEEDS: &[Need] = &[Need::Jars(JARS), Need::JavaCompiler, Need::Kazoo("2.11.")];
/// Of sessions that are not meant to expire.
const SESSION_MS: u32 = 30_000;
/// The pause between two looks at what gives no notice: a server's list of watches.
const POLL: Duration = Duration::from_millis(10);

fn all_there(test: &str) -> bool {
    available(test, NEEDS)
}

/// Contenders of all languages at one server.
struct Stage {
    // First, so that they end before the server does.
    java: Program,
    python: Program,
    client: Client,
    scene: Scene,
    folder: TempDir,
    opened: usize,
}

impl Stage {
    async fn new(scene: Scene) -> Self {
        static CLASSES: Classes = Classes::new("contender");
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let source = [sources.join("java/Contender.java")];
        let java = CLASSES.program(target, JARS, &source, "Contender");
        let mut python = Command::new("python3");
        python
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .arg(sources.join("python/contender.py"));
        let server = scene.connect_string();
        let folder = tempfile::tempdir().unwrap();
        Self {
            java: Program::start(java, &server, &folder.path().join("java.log")),
            python: Program::start(python, &server, &folder.path().join("python.log")),
            client: scene.client().await,
            scene,
            folder,
            opened: 0,
        }
    }

    /// A contender with a session of its own. Those of one path have one referee.
    fn open(&mut self, recipe: &str, path: &str) -> Contender {
        self.open_with(recipe, path, SESSION_MS)
    }

    fn open_with(&mut self, recipe: &str, path: &str, session_ms: u32) -> Contender {
        let timeout = Duration::from_millis(session_ms.into());
        let builder = self.scene.builder().session_timeout(timeout);
        self.open_by(builder, recipe, path, session_ms)
    }

    /// One of this process by a client of its own; the programs have theirs.
    fn open_by(
        &mut self,
        builder: ClientBuilder,
        recipe: &str,
        path: &str,
        session_ms: u32,
    ) -> Contender {
        self.opened += 1;
        let name = format!("{}-{}", recipe.replace(':', "-"), self.opened);
        let folder = self.referees(path);
        let (family, _) = recipe.split_once('-').unwrap();
        let role = role(recipe);
        match family {
            "curator" | "zookeeper" => {
                self.java
                    .open(&name, recipe, path, (&folder, &role), session_ms)
            }
            "kazoo" => self
                .python
                .open(&name, recipe, path, (&folder, &role), session_ms),
            "go" => {
                let path = path.to_owned();
                contender::task(&name, &folder, &role, async move {
                    GoLock::new(builder.connect().await.unwrap(), &path)
                })
            }
            "quorate" if recipe.starts_with("quorate-election:") => {
                let (recipe, path, identity) = (recipe.to_owned(), path.to_owned(), name.clone());
                contender::task(&name, &folder, &role, async move {
                    let client = builder.connect().await.unwrap();
                    Candidate::new(client, &recipe, &path, &identity)
                })
            }
            "quorate" => {
                let (recipe, path) = (recipe.to_owned(), path.to_owned());
                contender::task(&name, &folder, &role, async move {
                    Lock::new(builder.connect().await.unwrap(), &recipe, &path)
                })
            }
            _ => panic!("there is no recipe {recipe}"),
        }
    }

    fn referees(&self, path: &str) -> PathBuf {
        let folder = self.folder.path().join(path.replace('/', "_"));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// Whether somebody watches a znode of somebody else below the path: waits for it to go.
    async fn somebody_waits(&self, path: &str) -> bool {
        for (watched, sessions) in self.watches() {
            if !watched.starts_with(&format!("{path}/")) {
                continue;
            }
            if let Some(stat) = self.client.exists(&watched).await.unwrap() {
                let owner = format!("0x{:x}", stat.ephemeral_owner);
                if sessions.iter().any(|session| *session != owner) {
                    return true;
                }
            }
        }
        false
    }

    /// The server's data watches: each path with the sessions that watch it.
    fn watches(&self) -> Vec<(String, Vec<String>)> {
        let mut watches: Vec<(String, Vec<String>)> = Vec::new();
        for line in self.scene.server.four_letter_word("wchp").unwrap().lines() {
            match (line.strip_prefix('\t'), watches.last_mut()) {
                (Some(session), Some((_, sessions))) => sessions.push(session.to_owned()),
                _ => watches.push((line.to_owned(), Vec::new())),
            }
        }
        watches
    }

    /// What becomes of one that was told to enter: its answer, or that it has begun to wait.
    async fn outcome(&self, second: &mut Contender, path: &str) -> String {
        let deadline = Instant::now() + STEP_LIMIT;
        loop {
            if let Some(answer) = second.answer_so_far() {
                return answer;
            }
            if self.somebody_waits(path).await {
                return "waits".to_owned();
            }
            assert!(Instant::now() < deadline, "{} does neither", second.name);
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Whom one may meet inside.
fn role(recipe: &str) -> String {
    let (kind, argument) = recipe.split_once(':').unwrap_or((recipe, ""));
    match kind.rsplit('-').next() {
        Some("semaphore") => format!("of-{argument}"),
        Some("read") => "reader".to_owned(),
        // These keep nobody out.
        Some("barrier" | "together" | "counter" | "count" | "number") => "of-99".to_owned(),
        _ => "alone".to_owned(),
    }
}
