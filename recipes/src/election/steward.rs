//! What a leader does beside its work: hands over when it is asked to, or when the preferred candidate
//! has stood for long enough.

use std::time::Duration;

use tokio::time::Instant;

use super::Term;
use crate::Error;
use crate::revocation;
use crate::view::Contender;

/// The pause before what has failed is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Ends by itself when the term does.
pub(super) fn start(term: &Term, prefer_after: Duration) {
    let term = term.clone();
    tokio::spawn(async move {
        let serve = async {
            loop {
                let wanted = tokio::select! {
                    asked = asked_to_hand_over(&term) => asked,
                    preferred = preferred(&term, prefer_after) => preferred,
                };
                // Nothing of this is given up half-way, so that nobody is asked in vain.
                let served = match wanted {
                    Ok(to) => term.transfer_to(&to).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = served {
                    tracing::info!(path = term.lease().path(), %error, "not handed over");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
        tokio::select! {
            () = serve => {}
            _ = term.lease().stopping() => {}
        }
    });
}

/// Resolves when somebody asks the leader to hand over: to whom.
async fn asked_to_hand_over(term: &Term) -> Result<String, Error> {
    let (line, node) = (term.line(), term.lease().node());
    loop {
        let ((data, _), changed) = line.client.get(node).watch().await?;
        if let Some(to) = revocation::transferred(&data) {
            // Answered either way: it is asked once.
            let own = term.lease().node().rsplit('/').next().unwrap_or_default();
            line.tell(own, term.identity().to_owned()).await?;
            return Ok(to);
        }
        changed.await.ok();
    }
}

/// Resolves when the preferred candidate, if it is another, has stood for so long: who that is.
async fn preferred(term: &Term, stable_for: Duration) -> Result<String, Error> {
    let line = term.line();
    // The candidate's znode, and since when it is known.
    let mut stands: Option<(Contender, Instant)> = None;
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
        let ((names, _), line_changed) = line.client.children(&line.path).watch().await?;
        stands.take_if(|(known, _)| known.identity != preferred || !names.contains(&known.node));
        if stands.is_none() {
            let since = Instant::now();
            let mut others = line.view().await?.into_iter();
            let found = others.find(|other| other.identity == preferred);
            stands = found.map(|found| (found, since));
        }
        let is_stable = async {
            match &stands {
                Some((_, since)) => tokio::time::sleep_until(*since + stable_for).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = is_stable => return Ok(preferred),
            _ = record_changed => {}
            _ = line_changed => {}
        }
    }
}
