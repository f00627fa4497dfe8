//! One contract for all CA backends: the built-in one, a key in a PKCS#11 token, and backends that
//! break one thing each. Prints backends and cases as a table (`make ca-contract`).

mod cases;

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use muster::ca::{
    Authority, BuiltinCa, Capabilities, CertificateAuthority, IssueError, IssuedCertificate,
    Pkcs11Ca, Pkcs11Settings, RevocationList, TokenName, TrustAnchors, check,
};
use muster::domain::{KeyDigest, TrustDomain};
use muster::registry::Recorded;
use muster::store::MemoryStore;

use self::cases::{CASES, Verdict, examine, refuses};
use super::authority::{Fault, FaultyCa};
use super::softhsm::{CONFIGURATION, SoftHsm};
use super::world::{ALLOWED, Node, POLICIES, World, start_of_story};

/// Tells the second process where the token is; it has the module's own variable too, which must be
/// set before the module is loaded.
const TOKEN_DIRECTORY: &str = "MUSTER_TEST_TOKEN_DIRECTORY";
/// How many orders the figures are taken from.
const MEASURED: u32 = 4000;

/// What breaks, the case that must fail, and what `ca::check` must say of it. A fault without a
/// certificate to check is caught by the case alone.
#[rustfmt::skip]
const BROKEN: [(Fault, &str, Option<&str>); 31] = [
    (Fault::Hangs, "answers in time", None),
    (Fault::Refuses, "answers in time", None),
    (Fault::Garbage, "the answer is a certificate", Some("it is not an X.509 certificate")),
    (Fault::OtherKey, "of the ordered key", Some("its key is another one")),
    (Fault::ExtraDnsName, NAMES, Some(OTHER_NAMES)),
    (Fault::ExtraIp, NAMES, Some(OTHER_NAMES)),
    (Fault::ExtraEmail, NAMES, Some(OTHER_NAMES)),
    (Fault::ExtraUri, NAMES, Some(OTHER_NAMES)),
    (Fault::ExtraOtherName, NAMES, Some(OTHER_NAMES)),
    (Fault::OtherId, NAMES, Some(OTHER_NAMES)),
    (Fault::MissingDnsName, NAMES, Some(OTHER_NAMES)),
    (Fault::OtherCommonName, "with the ordered subject", Some("its common name is another one")),
    (Fault::ExtraAttribute, "with the ordered subject", Some("its subject is not one common name")),
    (Fault::OtherSerial, "with the ordered serial", Some("its serial is another one")),
    (Fault::LongerLife, "for the ordered time", Some("it ends at another time")),
    (Fault::EarlierStart, "for the ordered time", Some("it begins at another time")),
    (Fault::KeyCertSign, "for digital signatures alone", Some("its key usage is not digitalSignature alone, critical")),
    (Fault::NoExtendedUsage, "for TLS servers and clients", Some("an extension is missing")),
    (Fault::OnlyClientAuth, "for TLS servers and clients", Some("its extended key usages are not serverAuth and clientAuth")),
    (Fault::Authority, "not of an authority", Some("it is the certificate of an authority")),
    (Fault::CriticalExtension, "without another critical extension", Some("it has an extension that was not ordered")),
    (Fault::ForeignIssuer, CHAIN, Some("it does not chain to the node CA")),
    (Fault::TwoLeaves, CHAIN, Some("something else than its issuers follows it")),
    (Fault::Empty, CHAIN, Some("the chain is empty")),
    (Fault::Inconstant, "the same order is the same content again", None),
    (Fault::SignsForOthers, "an order for another issuer is refused", None),
    (Fault::DeadHealthCheck, "the health check says yes", None),
    (Fault::OneAtATime, "64 orders at once are answered alike", None),
    (Fault::OtherListNumber, "a revocation list is as asked for", None),
    (Fault::ForgetfulList, "a revocation list is as asked for", None),
    (Fault::StrayAnchor, "OpenSSL verifies the trust anchors", None),
];
const NAMES: &str = "with the ordered names and no other, of any kind";
const OTHER_NAMES: &str = "its alternative names are not the ones that were ordered";
const CHAIN: &str = "signed by the node CA, with nothing beside it";

/// Stands where the backend stands in a server, so that it gets orders that are really on record,
/// and puts the backend behind it to the test.
struct Examiner {
    backend: Arc<dyn CertificateAuthority>,
    is_genuine: bool,
    /// What the server believes that the issuer is.
    issuer: Mutex<KeyDigest>,
    report: Mutex<Report>,
}

#[derive(Clone, Default)]
struct Report {
    foreign_order: Option<Verdict>,
    verdicts: Vec<Verdict>,
    /// What `ca::check` says.
    objection: Option<String>,
    issues_per_second: u32,
}

#[async_trait::async_trait]
impl CertificateAuthority for Examiner {
    fn name(&self) -> &'static str {
        self.backend.name()
    }

    async fn issue(&self, recorded: &Recorded) -> Result<IssuedCertificate, IssueError> {
        let examined = IssueError::Unavailable("it was examined".to_owned());
        let backend = self.backend.as_ref();
        if recorded.order().issuer != backend.issuer() {
            let verdict = refuses(backend, recorded).await;
            self.report.lock().unwrap().foreign_order = Some(verdict);
            return Err(examined);
        }
        let foreign_order = self.report.lock().unwrap().foreign_order.clone().unwrap();
        let (verdicts, answer) =
            examine(backend, recorded, foreign_order.clone(), self.is_genuine).await;
        let anchors = backend.trust_anchors().await?;
        let objection =
            answer.and_then(|issued| check(recorded, issued, &anchors).err()).map(|one| one.0);
        let issues_per_second = if self.is_genuine { measure(backend, recorded).await } else { 0 };
        *self.report.lock().unwrap() = Report {
            foreign_order: Some(foreign_order),
            verdicts,
            objection: objection.map(str::to_owned),
            issues_per_second,
        };
        Err(examined)
    }

    async fn sign_revocation_list(&self, list: &RevocationList) -> Result<Vec<u8>, IssueError> {
        self.backend.sign_revocation_list(list).await
    }

    async fn trust_anchors(&self) -> Result<TrustAnchors, IssueError> {
        self.backend.trust_anchors().await
    }

    fn issuer(&self) -> KeyDigest {
        *self.issuer.lock().unwrap()
    }

    fn capabilities(&self) -> Capabilities {
        self.backend.capabilities()
    }

    async fn check(&self) -> Result<(), IssueError> {
        self.backend.check().await
    }
}

async fn measure(backend: &dyn CertificateAuthority, recorded: &Recorded) -> u32 {
    let begin = Instant::now();
    for _ in 0..MEASURED {
        backend.issue(recorded).await.unwrap();
    }
    let milliseconds = u32::try_from(begin.elapsed().as_millis()).unwrap().max(1);
    MEASURED * 1000 / milliseconds
}

/// Has the backend examined on two orders, one of which names another issuer.
async fn report(backend: Arc<dyn CertificateAuthority>, is_genuine: bool) -> Report {
    let nobody = KeyDigest::of_spki(b"nobody");
    let issuer = Mutex::new(nobody);
    let own = backend.issuer();
    let report = Mutex::default();
    let examiner = Arc::new(Examiner { backend, is_genuine, issuer, report });
    let authority = Arc::clone(&examiner) as Arc<dyn CertificateAuthority>;
    let world =
        World::with(Arc::new(MemoryStore::new()), POLICIES, move |_| Arc::clone(&authority));
    world.join(&Node::new(ALLOWED, 1), "web").await.unwrap_err();
    *examiner.issuer.lock().unwrap() = own;
    world.join(&Node::new(ALLOWED, 2), "web").await.unwrap_err();
    examiner.report.lock().unwrap().clone()
}

/// In a runtime of its own; for those that hang the time is not real.
fn examined<B: CertificateAuthority + 'static>(
    is_genuine: bool,
    backend: impl AsyncFnOnce() -> B,
) -> Report {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(!is_genuine).build().unwrap();
    runtime.block_on(async { report(Arc::new(backend().await), is_genuine).await })
}

/// The contract, in a second process where there is a token.
#[test]
fn every_backend_keeps_the_contract_and_every_broken_one_fails_its_own_case() {
    let keep = tempfile::tempdir().unwrap();
    let Some(hsm) = SoftHsm::new(keep.path(), "muster") else {
        // What needs no token is told all the same.
        return run(None);
    };
    let told = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "contract::the_process_with_the_token", "--nocapture"])
        .env(CONFIGURATION, &hsm.configuration)
        .env(TOKEN_DIRECTORY, keep.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&told.stdout);
    eprintln!("{text}{}", String::from_utf8_lossy(&told.stderr));
    assert!(told.status.success(), "the second process failed");
    assert!(text.contains("pkcs11"), "the second process ran no case");
}

/// Not a test of its own: the process whose environment names the token.
#[test]
fn the_process_with_the_token() {
    if let Ok(directory) = std::env::var(TOKEN_DIRECTORY) {
        run(Some(Path::new(&directory)));
    }
}

fn run(token: Option<&Path>) {
    let mut rows = Vec::new();
    let keep = tempfile::tempdir().unwrap();
    let domain: TrustDomain = "prod.example.org".parse().unwrap();
    let builtin = examined(true, async || {
        let node_ca = Authority::node_ca(keep.path(), &domain, None, start_of_story()).unwrap();
        BuiltinCa::new(Arc::new(node_ca))
    });
    rows.push(("builtin".to_owned(), builtin));
    if let Some(directory) = token {
        let pkcs11 = examined(true, async || {
            let settings = settings(directory);
            Pkcs11Ca::open(&settings, directory, &domain, start_of_story()).await.unwrap()
        });
        rows.push(("pkcs11".to_owned(), pkcs11));
    }
    let sound = examined(false, async || FaultyCa::new(Fault::None));
    rows.push(("remote, sound".to_owned(), sound));
    let genuine = rows.len();
    for (fault, _, _) in BROKEN {
        let report = examined(false, async || FaultyCa::new(fault));
        rows.push((format!("{fault:?}"), report));
    }
    print_table(&rows);

    // The last case is for backends that others have to trust.
    for case in &CASES[..CASES.len() - 1] {
        assert!(BROKEN.iter().any(|(_, own, _)| own == case), "no backend breaks: {case}");
    }
    for (name, report) in &rows[..genuine] {
        for (case, verdict) in CASES.iter().zip(&report.verdicts) {
            let is_kept = !matches!(verdict, Verdict::Fails(_));
            assert!(is_kept, "{name}: {case}: {verdict:?}");
        }
        assert_eq!(report.objection, None, "{name}");
    }
    for ((fault, own, objection), (_, report)) in BROKEN.iter().zip(&rows[genuine..]) {
        for (case, verdict) in CASES.iter().zip(&report.verdicts) {
            let fails = matches!(verdict, Verdict::Fails(_));
            assert_eq!(fails, case == own, "{fault:?}: {case}: {verdict:?}");
        }
        assert_eq!(report.objection.as_deref(), *objection, "{fault:?}");
    }
}

fn settings(directory: &Path) -> Pkcs11Settings {
    Pkcs11Settings {
        module: SoftHsm::module().unwrap().into(),
        token: TokenName::Label("muster".to_owned()),
        key_label: "node-ca".to_owned(),
        pin_file: SoftHsm::pin_file(directory),
        sessions: 4,
        create_key: true,
    }
}

#[expect(clippy::print_stdout, reason = "the table is the point")]
fn print_table(rows: &[(String, Report)]) {
    println!("\n{:<18} {}  ca::check", "", (1..=CASES.len()).map(number).collect::<String>());
    for (name, report) in rows {
        let signs: String = report.verdicts.iter().map(Verdict::sign).collect();
        println!("{name:<18} {signs}  {}", report.objection.as_deref().unwrap_or("-"));
    }
    println!();
    for (place, case) in CASES.iter().enumerate() {
        println!("{:>3} {case}", place + 1);
    }
    println!("\n✓ kept   ✗ broken   · nothing to judge");
    for (name, report) in rows.iter().filter(|(_, report)| report.issues_per_second > 0) {
        println!("{name}: {} certificates a second, one after the other", report.issues_per_second);
    }
}

fn number(number: usize) -> String {
    format!("{number:>3}")
}
