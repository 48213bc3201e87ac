//! What a leader does beside its work: hands over when it is asked to, or when the preferred candidate
//! has stood for long enough.

use std::time::Duration;

use tokio::time::Instant;

use super::Term;
use crate::Error;
use crate::revocation;

/// The pause before what has failed is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Ends by itself when the term does.
pub(super) fn start(term: &Term, prefer_after: Duration) {
    let term = term.clone();
    tokio::spawn(async move {
        let serve = async {
            loop {
                let served = tokio::select! {
                    served = hand_over_when_asked(&term) => served,
                    served = hand_over_to_preferred(&term, prefer_after) => served,
                };
                match served {
                    Ok(()) => {}
                    Err(error) => {
                        tracing::info!(path = term.lease().path(), %error, "not handed over");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = serve => {}
            _ = term.lease().stopping() => {}
        }
    });
}

/// Returns after it has handed over, or has failed to.
async fn hand_over_when_asked(term: &Term) -> Result<(), Error> {
    let (line, node) = (term.line(), term.lease().node());
    loop {
        let ((data, _), changed) = line.client.get(node).watch().await?;
        if let Some(to) = revocation::transferred(&data) {
            // Answered either way: it is asked once.
            let own = term.lease().node().rsplit('/').next().unwrap_or_default();
            line.tell(own, term.identity().to_owned()).await?;
            return term.transfer_to(&to).await;
        }
        changed.await.ok();
    }
}

/// Returns after it has handed over, or has failed to.
async fn hand_over_to_preferred(term: &Term, stable_for: Duration) -> Result<(), Error> {
    let line = term.line();
    loop {
        let ((data, _), record_changed) = line.client.get(&line.path).watch().await?;
        let record = crate::record::Record::parse(line.kind, &data);
        let preferred = record
            .preferred_holder
            .filter(|preferred| preferred != term.identity());
        let Some(preferred) = preferred else {
            record_changed.await.ok();
            continue;
        };
        // Only with a preferred candidate is the leader woken by all who come and go.
        let (_, line_changed) = line.client.children(&line.path).watch().await?;
        let since = Instant::now();
        let stands = line
            .view()
            .await?
            .into_iter()
            .any(|other| other.identity == preferred);
        tokio::select! {
            _ = record_changed => {}
            _ = line_changed => {}
            () = tokio::time::sleep_until(since + stable_for), if stands => {
                return term.transfer_to(&preferred).await;
            }
        }
    }
}
