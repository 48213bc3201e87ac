//! Our locks and our election, as contenders like the others.

use quorate_client::Client;
use quorate_recipes::election::{Compat, Leadership};
use quorate_recipes::{Acquire, Election, Guard, Mutex, Naming, ReadWriteLock, Semaphore};

use super::contender::Recipe;

pub(super) struct Lock {
    client: Client,
    acquire: Box<dyn Fn() -> Acquire + Send + Sync>,
    guard: Option<Guard>,
}

impl Lock {
    /// `recipe` is `quorate-lock:`, `-read:` or `-write:` and a naming, or `quorate-semaphore:` and a
    /// size.
    pub(super) fn new(client: Client, recipe: &str, path: &str) -> Self {
        let (kind, argument) = recipe.split_once(':').unwrap();
        let naming = match argument {
            "kazoo" => Naming::Kazoo,
            "java" => Naming::JavaRecipe,
            _ => Naming::Curator,
        };
        let mutex = Mutex::new(&client, path).naming(naming);
        let shared = ReadWriteLock::new(&client, path).naming(naming);
        let acquire: Box<dyn Fn() -> Acquire + Send + Sync> = match kind {
            "quorate-lock" => Box::new(move || mutex.acquire()),
            "quorate-read" => Box::new(move || shared.read()),
            "quorate-write" => Box::new(move || shared.write()),
            "quorate-semaphore" => {
                let semaphore = Semaphore::new(&client, path, argument.parse().unwrap());
                Box::new(move || semaphore.acquire())
            }
            _ => panic!("there is no recipe {recipe}"),
        };
        Self {
            client,
            acquire,
            guard: None,
        }
    }
}

impl Recipe for Lock {
    async fn enter(&mut self) -> Result<(), String> {
        let guard = (self.acquire)().await;
        self.guard = Some(guard.map_err(|error| error.to_string())?);
        Ok(())
    }

    async fn leave(&mut self) -> Result<(), String> {
        let guard = self.guard.take().ok_or("it is not held")?;
        guard.release().await.map_err(|error| error.to_string())
    }

    async fn stopped(&mut self) -> String {
        match &self.guard {
            Some(guard) => guard.stopping().await.to_string(),
            None => std::future::pending().await,
        }
    }

    async fn close(self) {
        self.client.close().await;
    }
}

pub(super) struct Candidate {
    client: Client,
    election: Election,
    leadership: Option<Leadership>,
}

impl Candidate {
    /// `recipe` is `quorate-election:` and with whom.
    pub(super) fn new(client: Client, recipe: &str, path: &str, name: &str) -> Self {
        let compat = match recipe {
            "quorate-election:native" => Compat::Native,
            "quorate-election:latch" => Compat::Latch,
            "quorate-election:selector" => Compat::Selector,
            "quorate-election:kazoo" => Compat::Kazoo,
            _ => panic!("there is no recipe {recipe}"),
        };
        Self {
            election: Election::new(&client, path).compat(compat).identity(name),
            client,
            leadership: None,
        }
    }
}

impl Recipe for Candidate {
    async fn enter(&mut self) -> Result<(), String> {
        let leadership = self.election.campaign("").await;
        self.leadership = Some(leadership.map_err(|error| error.to_string())?);
        Ok(())
    }

    async fn leave(&mut self) -> Result<(), String> {
        let leadership = self.leadership.take().ok_or("it does not lead")?;
        leadership.resign().await.map_err(|error| error.to_string())
    }

    async fn stopped(&mut self) -> String {
        match &self.leadership {
            Some(leadership) => leadership.stopping().await.to_string(),
            None => std::future::pending().await,
        }
    }

    async fn close(self) {
        self.client.close().await;
    }
}
