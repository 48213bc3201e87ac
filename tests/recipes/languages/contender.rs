//! One of those who want to enter: in a process of another language, or a task of this one.
//!
//! All of them understand the same commands and answer alike; `java/Contender.java` lists both.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::time::Duration;

use super::referee::Referee;

/// Far more than any step takes on a busy machine.
pub(super) const STEP_LIMIT: Duration = Duration::from_secs(40);
/// How long a round lasts inside, as in `Contender.java`.
const INSIDE: Duration = Duration::from_millis(1);

/// How commands get to where they are obeyed.
pub(super) trait Obey {
    fn command(&self, command: &str);
}

/// Where tests command a contender from. Its answers come in the order of its commands.
pub(super) struct Contender {
    pub(super) name: String,
    commands: Box<dyn Obey + Send>,
    answers: Receiver<String>,
    opened: bool,
    /// To leave in its place once it was killed.
    referee: Referee,
}

impl Contender {
    pub(super) fn new(
        name: &str,
        commands: impl Obey + Send + 'static,
        answers: Receiver<String>,
        referee: Referee,
    ) -> Self {
        Self {
            name: name.to_owned(),
            commands: Box::new(commands),
            answers,
            opened: false,
            referee,
        }
    }

    /// Tells it what to do, and does not wait for it.
    pub(super) fn command(&self, command: &str) {
        self.commands.command(command);
    }

    /// Its next answer.
    #[track_caller]
    pub(super) fn answer(&mut self) -> String {
        if !self.opened {
            self.opened = true;
            self.expect("opened");
        }
        match self.answers.recv_timeout(STEP_LIMIT) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => panic!("{} does not answer in time", self.name),
            Err(RecvTimeoutError::Disconnected) => panic!("{} has ended", self.name),
        }
    }

    /// Its next answer, if there is one already.
    #[track_caller]
    pub(super) fn answer_so_far(&mut self) -> Option<String> {
        match self.answers.try_recv() {
            Ok(answer) => Some(answer),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => panic!("{} has ended", self.name),
        }
    }

    #[track_caller]
    pub(super) fn expect(&mut self, expected: &str) {
        let answer = self.answer();
        assert_eq!(answer, expected, "{}", self.name);
    }

    /// Waits until it can be commanded.
    #[track_caller]
    pub(super) fn ready(&mut self) {
        if !self.opened {
            self.opened = true;
            self.expect("opened");
        }
    }

    /// Commands, and waits for the answer.
    #[track_caller]
    pub(super) fn must(&mut self, command: &str, expected: &str) {
        self.command(command);
        self.expect(expected);
    }

    /// It was killed while it was inside, and cannot tell the referee.
    pub(super) fn has_died(&self) {
        self.referee.leave();
    }
}

/// What a task of this process contends by.
pub(super) trait Recipe: Send + 'static {
    fn enter(&mut self) -> impl Future<Output = Result<(), String>> + Send;
    fn leave(&mut self) -> impl Future<Output = Result<(), String>> + Send;
    /// Resolves when it has to leave before it wants to. Cancel safe.
    fn stopped(&mut self) -> impl Future<Output = String> + Send {
        std::future::pending()
    }
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// Obeys until nobody commands any more.
pub(super) async fn obey(
    mut recipe: impl Recipe,
    referee: Referee,
    mut commands: tokio::sync::mpsc::UnboundedReceiver<String>,
    answers: Sender<String>,
) {
    let mut inside = false;
    // Nobody may be there to hear it once the test has failed.
    let answer = |text: Result<String, String>| {
        drop(answers.send(text.unwrap_or_else(|error| format!("failed {error}"))));
    };
    answer(Ok("opened".to_owned()));
    loop {
        let command = tokio::select! {
            command = commands.recv() => command,
            why = recipe.stopped(), if inside => {
                referee.leave();
                inside = false;
                answer(Ok(format!("stopped {why}")));
                continue;
            }
        };
        let Some(command) = command else { return };
        let (verb, argument) = command.split_once(' ').unwrap_or((&command, ""));
        match verb {
            "acquire" => {
                let entered = enter(&mut recipe, &referee).await;
                inside = entered.is_ok();
                answer(entered.map(|met| met.unwrap_or_else(|| "entered".to_owned())));
            }
            "release" => {
                referee.leave();
                inside = false;
                answer(recipe.leave().await.map(|()| "left".to_owned()));
            }
            "rounds" => answer(rounds(&mut recipe, &referee, argument).await),
            "close" => {
                recipe.close().await;
                answer(Ok("closed".to_owned()));
                return;
            }
            _ => answer(Err(format!("there is no command {verb}"))),
        }
    }
}

/// Enters; the violation, if there is one.
async fn enter(recipe: &mut impl Recipe, referee: &Referee) -> Result<Option<String>, String> {
    recipe.enter().await?;
    let met = referee.enter().map_err(|error| error.to_string())?;
    Ok((!met.is_empty()).then(|| format!("violation {}", met.join(","))))
}

async fn rounds(
    recipe: &mut impl Recipe,
    referee: &Referee,
    count: &str,
) -> Result<String, String> {
    for _ in 0..count.parse().unwrap_or(0) {
        let violation = enter(recipe, referee).await?;
        tokio::time::sleep(INSIDE).await;
        referee.leave();
        recipe.leave().await?;
        if let Some(violation) = violation {
            return Ok(violation);
        }
    }
    Ok(format!("done {count}"))
}

/// Starts one in a task of the current runtime.
pub(super) fn task<R: Recipe>(
    name: &str,
    folder: &Path,
    role: &str,
    recipe: impl Future<Output = R> + Send + 'static,
) -> Contender {
    let (to, commands) = tokio::sync::mpsc::unbounded_channel();
    let (answers, from) = std::sync::mpsc::channel();
    let referee = Referee::new(folder, role, name);
    tokio::spawn(async move { obey(recipe.await, referee, commands, answers).await });
    Contender::new(name, ToTask(to), from, Referee::new(folder, role, name))
}

struct ToTask(tokio::sync::mpsc::UnboundedSender<String>);

impl Obey for ToTask {
    fn command(&self, command: &str) {
        // A task that has ended is noticed by its missing answer.
        let _ = self.0.send(command.to_owned());
    }
}
