//! A process of another language that holds any number of contenders.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::contender::{Contender, Obey};
use super::referee::Referee;

/// How much of what it printed is shown when a test fails.
const LOG_TAIL_BYTES: usize = 8 * 1024;

/// Whom an answer is for.
type Listeners = Arc<Mutex<BTreeMap<String, Sender<String>>>>;

/// It is killed, by its process id, when dropped.
pub(super) struct Program {
    child: Child,
    input: Arc<Mutex<ChildStdin>>,
    listeners: Listeners,
    reader: Option<JoinHandle<()>>,
    log: PathBuf,
}

impl Program {
    /// Starts it. What it prints as errors goes to `log`, the end of which is shown if the test fails.
    pub(super) fn start(mut command: Command, server: &str, log: &Path) -> Self {
        let errors = File::create(log).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        let child = command
            .arg(server)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let input = child.stdin.take().expect("it was asked for");
        let output = child.stdout.take().expect("it was asked for");
        let listeners = Listeners::default();
        let to = Arc::clone(&listeners);
        let reader = thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let (name, answer) = line.split_once(' ').unwrap_or((&line, ""));
                let listeners = to.lock().unwrap_or_else(PoisonError::into_inner);
                match listeners.get(name) {
                    // Nobody may be there to hear it once the test has failed.
                    Some(listener) => drop(listener.send(answer.to_owned())),
                    None => eprintln!("a contender program prints {line:?}"),
                }
            }
            // Who waits for an answer learns that there will be none.
            to.lock().unwrap_or_else(PoisonError::into_inner).clear();
        });
        Self {
            child,
            input: Arc::new(Mutex::new(input)),
            listeners,
            reader: Some(reader),
            log: log.to_owned(),
        }
    }

    /// A new contender in it, which is being opened.
    pub(super) fn open(
        &self,
        name: &str,
        recipe: &str,
        path: &str,
        (folder, role): (&Path, &str),
        session_ms: u32,
    ) -> Contender {
        let commands = Input {
            name: name.to_owned(),
            input: Arc::clone(&self.input),
        };
        let folder_shown = folder.display();
        let answers = self.listen(name);
        commands.command(&format!(
            "open {recipe} {path} {folder_shown} {role} {session_ms}"
        ));
        Contender::new(name, commands, answers, Referee::new(folder, role, name))
    }

    fn listen(&self, name: &str) -> Receiver<String> {
        let (to, answers) = channel();
        let mut listeners = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = listeners.insert(name.to_owned(), to);
        assert!(before.is_none(), "{name} is there already");
        answers
    }

    /// Ends it at once (SIGKILL), and waits until it is gone.
    pub(super) fn kill(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            drop(reader.join());
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let printed = std::fs::read(&self.log).unwrap_or_default();
            let end = &printed[printed.len().saturating_sub(LOG_TAIL_BYTES)..];
            let (log, end) = (self.log.display(), String::from_utf8_lossy(end));
            eprintln!("--- the last lines of {log}:\n{end}");
        }
    }
}

struct Input {
    name: String,
    input: Arc<Mutex<ChildStdin>>,
}

impl Obey for Input {
    fn command(&self, command: &str) {
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        // A program that has ended is noticed by its missing answer.
        let _ = writeln!(input, "{} {command}", self.name);
        let _ = input.flush();
    }
}
