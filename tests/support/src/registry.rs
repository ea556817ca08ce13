//! A small registry for tests: HTTP/1.1 over TCP of this machine, with a server of tokens, a storage on
//! another port that it redirects to, and whatever may go wrong with one.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

/// What goes wrong with one answer to a question for a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// Nothing more comes after so many bytes of the body.
    Stall(usize),
    /// A byte every 20 ms.
    Slow,
    /// 401.
    Unauthorized,
    /// 429, with so many seconds to wait.
    TooMany(u64),
    /// 503.
    Unavailable,
    /// 404.
    Missing,
    /// A 206 that says it has one byte further on, with the bytes of the wrong place.
    OtherRange,
    /// A 206 that says the blob has another size.
    OtherTotal,
    /// All of it, whatever was asked for.
    Whole,
    /// One bit is another.
    Flipped,
    /// A redirect to itself.
    Circle,
    /// The connection ends without an answer.
    Nothing,
}

/// What the registry wants to see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Access {
    #[default]
    Open,
    /// This, in base64.
    Basic(String),
    /// A token, which whoever shows this in base64 gets; everybody, without it.
    Bearer(Option<String>),
}

/// A request that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Which server: "registry", "storage" or "tokens".
    pub server: &'static str,
    pub method: String,
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
    pub body: String,
}

#[derive(Default)]
struct Content {
    blobs: BTreeMap<String, Arc<Vec<u8>>>,
    /// By tag and by digest.
    manifests: BTreeMap<String, (String, Arc<Vec<u8>>)>,
    access: Access,
    faults: VecDeque<Fault>,
    /// Of every answer to a question for a blob.
    always: Option<Fault>,
    /// Manifests are cut short, or have another digest than the header says.
    truncate_manifests: bool,
    wrong_digest_header: bool,
    redirects: bool,
    /// Addresses at the storage of an older number have expired.
    signed: u64,
    /// Tokens of an older number have expired.
    token: u64,
    token_seconds: u64,
    seen: Vec<Seen>,
    latency: Duration,
}

struct State {
    content: Mutex<Content>,
    storage: Mutex<Option<SocketAddr>>,
    tokens: Mutex<Option<SocketAddr>>,
    /// Bytes of bodies that were sent.
    sent: AtomicU64,
    over: AtomicBool,
}

/// See the head of this file. It ends when it is dropped.
pub struct Registry {
    state: Arc<State>,
    address: SocketAddr,
    up: Mutex<Option<Arc<AtomicBool>>>,
}

impl Default for Registry {
    fn default() -> Registry {
        Registry::start()
    }
}

impl Registry {
    /// One that has nothing yet, and lets everybody in.
    pub fn start() -> Registry {
        let state = Arc::new(State {
            content: Mutex::new(Content {
                token_seconds: 300,
                ..Content::default()
            }),
            storage: Mutex::new(None),
            tokens: Mutex::new(None),
            sent: AtomicU64::new(0),
            over: AtomicBool::new(false),
        });
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let up = || Arc::new(AtomicBool::new(true));
        *state.storage.lock().unwrap() = Some(serve("storage", any, &state, up()));
        *state.tokens.lock().unwrap() = Some(serve("tokens", any, &state, up()));
        let is_up = up();
        let address = serve("registry", any, &state, Arc::clone(&is_up));
        Registry {
            state,
            address,
            up: Mutex::new(Some(is_up)),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Host and port.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.state.content.lock().unwrap()
    }

    pub fn add_blob(&self, bytes: Vec<u8>) -> String {
        let digest = digest(&bytes);
        self.add_blob_as(&digest, bytes);
        digest
    }

    /// Under any digest, right or wrong.
    pub fn add_blob_as(&self, digest: &str, bytes: Vec<u8>) {
        let blobs = &mut self.content().blobs;
        blobs.insert(digest.to_string(), Arc::new(bytes));
    }

    /// Adds a manifest or an index, and gives it a tag.
    pub fn add_manifest(&self, tag: &str, media_type: &str, bytes: Vec<u8>) -> String {
        let digest = digest(&bytes);
        let manifest = (media_type.to_string(), Arc::new(bytes));
        let mut content = self.content();
        content.manifests.insert(tag.to_string(), manifest.clone());
        content.manifests.insert(digest.clone(), manifest);
        digest
    }

    /// Adds the blobs of an archive, and its one manifest under a tag. Returns the digest of that.
    pub fn add_archive(&self, archive: &Path, tag: &str) -> String {
        let mut blobs = BTreeMap::new();
        let mut index = serde_json::Value::Null;
        let mut tar = tar::Archive::new(std::fs::File::open(archive).unwrap());
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_str().unwrap().to_string();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            if let Some(hex) = path.strip_prefix("blobs/sha256/") {
                blobs.insert(format!("sha256:{hex}"), bytes);
            } else if path == "index.json" {
                index = serde_json::from_slice(&bytes).unwrap();
            }
        }
        let descriptor = &index["manifests"][0];
        let manifest = blobs
            .remove(descriptor["digest"].as_str().unwrap())
            .unwrap();
        for bytes in blobs.into_values() {
            self.add_blob(bytes);
        }
        let media_type = descriptor["mediaType"].as_str().unwrap();
        self.add_manifest(tag, media_type, manifest)
    }

    pub fn require(&self, access: Access) {
        self.content().access = access;
    }

    /// The next answers to questions for blobs go wrong like this, one each.
    pub fn fail(&self, faults: &[Fault]) {
        self.content().faults.extend(faults);
    }

    /// All of them do, after those.
    pub fn always_fail(&self, fault: Option<Fault>) {
        self.content().always = fault;
    }

    pub fn truncate_manifests(&self, on: bool) {
        self.content().truncate_manifests = on;
    }

    pub fn state_wrong_digests(&self, on: bool) {
        self.content().wrong_digest_header = on;
    }

    /// Blobs are at the storage from now on.
    pub fn redirect(&self) {
        self.content().redirects = true;
    }

    /// What was signed, and all tokens, is of no use any more.
    pub fn expire(&self) {
        let mut content = self.content();
        content.signed += 1;
        content.token += 1;
    }

    pub fn token_seconds(&self, seconds: u64) {
        self.content().token_seconds = seconds;
    }

    /// Every answer takes so long.
    pub fn latency(&self, latency: Duration) {
        self.content().latency = latency;
    }

    /// Nobody is there any more: connections end, and new ones are refused.
    pub fn go(&self) {
        if let Some(up) = self.up.lock().unwrap().take() {
            up.store(false, Ordering::SeqCst);
        }
        let start = Instant::now();
        while TcpStream::connect(self.address).is_ok() {
            assert!(start.elapsed() < Duration::from_secs(10), "it does not go");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// It is there again, where it was.
    pub fn come_back(&self) {
        let up = Arc::new(AtomicBool::new(true));
        serve("registry", self.address, &self.state, Arc::clone(&up));
        *self.up.lock().unwrap() = Some(up);
    }

    /// The requests that came since this was asked last.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.content().seen)
    }

    /// Bytes of bodies that were sent.
    pub fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::SeqCst)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::SeqCst);
        if let Some(up) = self.up.lock().unwrap().take() {
            up.store(false, Ordering::SeqCst);
        }
    }
}

/// A digest as manifests write it.
pub fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Accepts connections on a thread, until it is no longer up. Returns where.
fn serve(
    server: &'static str,
    address: SocketAddr,
    state: &Arc<State>,
    up: Arc<AtomicBool>,
) -> SocketAddr {
    let listener = TcpListener::bind(address).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let state = Arc::clone(state);
    thread::spawn(move || {
        let is_up = || up.load(Ordering::SeqCst) && !state.over.load(Ordering::SeqCst);
        while is_up() {
            match listener.accept() {
                Ok((stream, _)) => {
                    let (state, up) = (Arc::clone(&state), Arc::clone(&up));
                    thread::spawn(move || converse(server, stream, &state, &up));
                }
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
    });
    address
}

/// Answers the requests of a connection until it ends.
fn converse(server: &'static str, stream: TcpStream, state: &State, up: &AtomicBool) {
    let _ = stream.set_nonblocking(false);
    let _ = stream.set_nodelay(true);
    // So that a server that is gone notices it.
    let _ = stream.set_read_timeout(Some(Duration::from_millis(50)));
    let mut reader = BufReader::new(&stream);
    while let Some(seen) = read_request(server, &mut reader, state, up) {
        let answer = answer(&seen, state);
        if !answer.send(&stream, state, up) {
            return;
        }
    }
}

fn read_request(
    server: &'static str,
    reader: &mut BufReader<&TcpStream>,
    state: &State,
    up: &AtomicBool,
) -> Option<Seen> {
    let mut line = || {
        let mut line = String::new();
        loop {
            if !up.load(Ordering::SeqCst) || state.over.load(Ordering::SeqCst) {
                return None;
            }
            match reader.read_line(&mut line) {
                Ok(0) => return None,
                Ok(_) if line.ends_with('\n') => return Some(line.trim_end().to_string()),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return None,
            }
        }
    };
    let first = line()?;
    let mut words = first.split(' ').map(str::to_string);
    let mut seen = Seen {
        server,
        method: words.next()?,
        path: words.next()?,
        range: None,
        authorization: None,
        body: String::new(),
    };
    let mut length = 0;
    loop {
        let line = line()?;
        let Some((name, value)) = line.split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "range" => seen.range = Some(value.to_string()),
            "authorization" => seen.authorization = Some(value.to_string()),
            "content-length" => length = value.parse().ok()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    seen.body = String::from_utf8(body).ok()?;
    state.content.lock().unwrap().seen.push(seen.clone());
    Some(seen)
}

/// What is sent.
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    blob: Arc<Vec<u8>>,
    first: usize,
    length: usize,
    fault: Option<Fault>,
    latency: Duration,
}

impl Answer {
    fn of(status: u16) -> Answer {
        Answer {
            status,
            headers: Vec::new(),
            blob: Arc::default(),
            first: 0,
            length: 0,
            fault: None,
            latency: Duration::ZERO,
        }
    }

    fn text(status: u16, text: String) -> Answer {
        Answer {
            length: text.len(),
            blob: Arc::new(text.into_bytes()),
            ..Answer::of(status)
        }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Answer {
        self.headers.push((name, value.into()));
        self
    }

    /// False when the connection is to end.
    fn send(&self, mut stream: &TcpStream, state: &State, up: &AtomicBool) -> bool {
        thread::sleep(self.latency);
        if self.fault == Some(Fault::Nothing) {
            return false;
        }
        let mut head = format!(
            "HTTP/1.1 {} x\r\nContent-Length: {}\r\n",
            self.status, self.length
        );
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        if stream.write_all(head.as_bytes()).is_err() {
            return false;
        }
        let mut body = self.blob[self.first..self.first + self.length].to_vec();
        let is_up = || up.load(Ordering::SeqCst) && !state.over.load(Ordering::SeqCst);
        let mut write = |bytes: &[u8]| {
            for piece in bytes.chunks(64 << 10) {
                if !is_up() || stream.write_all(piece).is_err() {
                    return false;
                }
                state.sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
            }
            true
        };
        match self.fault {
            Some(Fault::Cut(n)) => {
                write(&body[..n.min(body.len())]);
                false
            }
            Some(Fault::Stall(n)) => {
                write(&body[..n.min(body.len())]);
                let start = Instant::now();
                while is_up() && start.elapsed() < Duration::from_secs(60) {
                    thread::sleep(Duration::from_millis(5));
                }
                false
            }
            Some(Fault::Slow) => body.iter().all(|byte| {
                thread::sleep(Duration::from_millis(20));
                write(std::slice::from_ref(byte))
            }),
            Some(Fault::Flipped) => {
                let middle = body.len() / 2;
                if let Some(byte) = body.get_mut(middle) {
                    *byte ^= 4;
                }
                write(&body)
            }
            _ => write(&body),
        }
    }
}

fn answer(seen: &Seen, state: &State) -> Answer {
    let mut content = state.content.lock().unwrap();
    let latency = content.latency;
    let answer = match seen.server {
        "tokens" => token(seen, &content),
        "storage" => {
            let path = seen.path.split('?').next().unwrap();
            let number = seen.path.split("signature=").nth(1).unwrap_or_default();
            match number.parse() == Ok(content.signed) {
                true => blob(seen, &mut content, path.trim_start_matches('/')),
                false => Answer::of(403),
            }
        }
        _ => registry(seen, &mut content, state),
    };
    Answer { latency, ..answer }
}

/// What the server of tokens answers: whoever refreshes a token shows it in a form.
fn token(seen: &Seen, content: &Content) -> Answer {
    let may = match &content.access {
        Access::Bearer(Some(wanted)) => {
            let basic = format!("Basic {wanted}");
            let refresh = format!("refresh_token={wanted}");
            seen.authorization.as_deref() == Some(&basic)
                || seen.method == "POST" && seen.body.split('&').any(|field| field == refresh)
        }
        _ => seen.authorization.is_none(),
    };
    if !may {
        return Answer::of(401);
    }
    let (number, seconds) = (content.token, content.token_seconds);
    Answer::text(
        200,
        format!(r#"{{"token":"token-{number}","expires_in":{seconds}}}"#),
    )
}

fn registry(seen: &Seen, content: &mut Content, state: &State) -> Answer {
    let wanted = match &content.access {
        Access::Open => None,
        Access::Basic(auth) => Some(format!("Basic {auth}")),
        Access::Bearer(_) => Some(format!("Bearer token-{}", content.token)),
    };
    let challenge = || match &content.access {
        Access::Bearer(_) => {
            let tokens = state.tokens.lock().unwrap().unwrap();
            format!(
                r#"Bearer realm="http://{tokens}/token",service="test",scope="repository:team/m:pull""#
            )
        }
        _ => r#"Basic realm="test""#.into(),
    };
    if wanted.is_some() && seen.authorization != wanted {
        return Answer::of(401).with("WWW-Authenticate", challenge());
    }
    let Some(path) = seen.path.strip_prefix("/v2/team/m/") else {
        return Answer::of(404);
    };
    if let Some(name) = path.strip_prefix("manifests/") {
        let Some((media_type, bytes)) = content.manifests.get(name).cloned() else {
            return Answer::of(404);
        };
        let stated = match content.wrong_digest_header {
            true => digest(b"another"),
            false => digest(&bytes),
        };
        return Answer {
            length: bytes.len(),
            blob: bytes,
            fault: content.truncate_manifests.then_some(Fault::Cut(10)),
            ..Answer::of(200)
        }
        .with("Content-Type", media_type)
        .with("Docker-Content-Digest", stated);
    }
    let name = path.strip_prefix("blobs/").unwrap_or_default();
    if content.redirects && content.blobs.contains_key(name) {
        let storage = state.storage.lock().unwrap().unwrap();
        let location = format!("http://{storage}/{name}?signature={}", content.signed);
        return Answer::of(307).with("Location", location);
    }
    if content.faults.front() == Some(&Fault::Unauthorized) {
        content.faults.pop_front();
        let challenge = challenge();
        return Answer::of(401).with("WWW-Authenticate", challenge);
    }
    blob(seen, content, name)
}

fn blob(seen: &Seen, content: &mut Content, name: &str) -> Answer {
    let Some(blob) = content.blobs.get(name).cloned() else {
        return Answer::of(404);
    };
    let fault = content.faults.pop_front().or(content.always);
    match fault {
        Some(Fault::TooMany(seconds)) => {
            return Answer::of(429).with("Retry-After", seconds.to_string());
        }
        Some(Fault::Unavailable) => return Answer::of(503),
        Some(Fault::Missing) => return Answer::of(404),
        Some(Fault::Circle) => return Answer::of(302).with("Location", seen.path.clone()),
        _ => {}
    }
    let total = blob.len();
    let range = seen.range.as_deref().and_then(|range| {
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse::<usize>().ok()?, last.parse::<usize>().ok()?))
    });
    let Some((first, last)) = range.filter(|_| fault != Some(Fault::Whole)) else {
        return Answer {
            length: total,
            blob,
            fault,
            ..Answer::of(200)
        };
    };
    if first >= total || last < first {
        return Answer::of(416).with("Content-Range", format!("bytes */{total}"));
    }
    let last = last.min(total - 1);
    let (mut stated, mut size, mut start) = (first, total, first);
    match fault {
        Some(Fault::OtherRange) => {
            stated = first + 1;
            start = first.min(total - (last - first + 1)).saturating_sub(1);
        }
        Some(Fault::OtherTotal) => size += 1,
        _ => {}
    }
    Answer {
        first: start,
        length: last - first + 1,
        blob,
        fault,
        ..Answer::of(206)
    }
    .with("Content-Range", format!("bytes {stated}-{last}/{size}"))
}
