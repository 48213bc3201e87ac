//! Instances of a service register themselves, and a caller asks one after the other. One instance is
//! taken out in order, one dies without a word; the caller gets an answer to every question.
//!
//! ```sh
//! cargo run -p quorate-recipes --example service_registry                    # with a server of its own
//! cargo run -p quorate-recipes --example service_registry -- localhost:2181  # Quorate or ZooKeeper
//! ```
#![expect(clippy::print_stdout, reason = "it shows what happens")]

use std::error::Error;
use std::time::Duration;

use quorate_client::{Client, OnExpiry};
use quorate_recipes::{Instance, Registration, Registry, Selector, Service, Strategy};
use quorate_testing::TestServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

const BASE: &str = "/examples/services";
const SERVICE: &str = "greeting";
const INSTANCES: usize = 3;
/// Short, so that the dead is gone soon. A server may grant more.
const SESSION: Duration = Duration::from_millis(1500);
/// For any change of the registry.
const PATIENCE: Duration = Duration::from_secs(30);

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    // Without an address: a server in this process, gone when `_server` is.
    let (address, _server) = match std::env::args().nth(1) {
        Some(address) => (address, None),
        None => {
            let server = TestServer::start().await?;
            (server.connect_string(), Some(server))
        }
    };
    let client = connect(&address).await?;
    let registry = Registry::new(&client, BASE);
    // Read once, and kept up to date: to choose an instance costs no request.
    let mut service = registry.follow(SERVICE).await?;
    let selector = service.selector(Strategy::RoundRobin);

    let mut machines = Vec::new();
    for number in 1..=INSTANCES {
        machines.push(Machine::start(number, &address).await?);
    }
    wait_for(&mut service, INSTANCES).await?;
    let mut answers = ask(&selector, 6).await?;

    // To be replaced by a newer version: others stop asking it first, then it ends.
    if let Some(machine) = machines.pop() {
        println!("instance {INSTANCES} is taken out");
        machine.registration.not_ready().await?;
        wait_for(&mut service, INSTANCES - 1).await?;
        machine.runtime.shutdown_background();
        answers += ask(&selector, 4).await?;
    }
    // No power: the registry knows nothing of it until the session has ended. The caller notices first.
    if let Some(machine) = machines.pop() {
        println!("instance {} dies", INSTANCES - 1);
        machine.runtime.shutdown_background();
        answers += ask(&selector, 4).await?;
        wait_for(&mut service, INSTANCES - 2).await?;
        answers += ask(&selector, 2).await?;
    }

    for machine in machines {
        machine.registration.deregister().await?;
        machine.runtime.shutdown_background();
    }
    wait_for(&mut service, 0).await?;
    client.close().await;
    if answers != 16 {
        return Err(format!("16 questions, {answers} answers").into());
    }
    println!("all 16 questions were answered");
    Ok(())
}

/// A session that is followed by another if it expires: who was registered is again.
async fn connect(address: &str) -> Result<Client, Failure> {
    let builder = Client::builder(address).session_timeout(SESSION);
    Ok(builder.on_expiry(OnExpiry::NewSession).connect().await?)
}

/// Waits until there are so many instances.
async fn wait_for(service: &mut Service, wanted: usize) -> Result<(), Failure> {
    tokio::time::timeout(PATIENCE, async {
        while service.instances().len() != wanted {
            service.changed().await.ok_or("the session is over")?;
        }
        let ids: Vec<String> = service
            .instances()
            .iter()
            .map(|one| one.id.clone())
            .collect();
        println!("registered: {ids:?}");
        Ok(())
    })
    .await?
}

/// Asks so many times, and counts the answers. An instance that does not answer is noted, and another
/// asked: after two failures it is passed over.
async fn ask(selector: &Selector, questions: usize) -> Result<usize, Failure> {
    let mut answers = 0;
    for _ in 0..questions {
        loop {
            let instance = selector.select().ok_or("there is no instance")?;
            match greeting_of(&instance).await {
                Ok(greeting) => {
                    println!("  {greeting}");
                    answers += 1;
                    break;
                }
                Err(error) => {
                    println!("  {} does not answer: {error}", instance.id);
                    selector.note_failure(&instance.id);
                }
            }
        }
    }
    Ok(answers)
}

async fn greeting_of(instance: &Instance) -> Result<String, Failure> {
    let port = instance.port.ok_or("it has no port")?;
    let mut stream = TcpStream::connect((instance.address.as_str(), port)).await?;
    let mut greeting = String::new();
    stream.read_to_string(&mut greeting).await?;
    Ok(greeting)
}

/// An instance, with threads of its own that can be stopped as by a power failure.
struct Machine {
    runtime: Runtime,
    registration: Registration,
}

impl Machine {
    async fn start(number: usize, address: &str) -> Result<Self, Failure> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let (tell, told) = oneshot::channel();
        let address = address.to_owned();
        runtime.spawn(async move {
            tell.send(serve(number, &address).await).ok();
        });
        let registration = told.await??;
        Ok(Self {
            runtime,
            registration,
        })
    }
}

async fn serve(number: usize, address: &str) -> Result<Registration, Failure> {
    // First it listens, then it says so.
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let instance = Instance::new(SERVICE, format!("greeting-{number}"))
        .address("127.0.0.1")
        .port(listener.local_addr()?.port());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let greeting = format!("hello from greeting-{number}");
            stream.write_all(greeting.as_bytes()).await.ok();
        }
    });
    let registration = Registry::new(&connect(address).await?, BASE).register(instance);
    registration.ready().await?;
    Ok(registration)
}
