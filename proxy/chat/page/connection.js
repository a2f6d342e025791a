// The link to the service: the session, the event stream with its reconnects, and the posts.
//
// The browser resumes a broken stream by itself, with the id of the last event. What it gives up on (a rejection, a 5xx,
// an end for good) is opened anew here, after a pause that grows, from the last id that was seen.
import { Slices } from "./slices.js";

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;
const POST_MS = 20_000;
const SESSION_MS = 8_000;
const REST_MS = 300_000; // a browser opens six connections to a site without HTTP/2: tabs that nobody sees give theirs back
const BEGINNING = "0-0";

/** Milliseconds of an event id ("ms-seq"), or null: another program publishes ids and times of any kind. */
function idTime(id) {
  return /^\d{1,15}-\d{1,20}$/.test(id) ? Number(id.split("-")[0]) : null;
}

function isTime(at) {
  return typeof at === "number" && at > 0 && at < 1e15; // a date has no more digits
}

function isLater(id, than) {
  const [ms, seq] = id.split("-").map(Number);
  const [thanMs, thanSeq] = than.split("-").map(Number);
  return ms > thanMs || (ms === thanMs && seq > thanSeq);
}

/**
 * Fires `message` ({html, reason, number, source, id, at}), `settings` ({title, models, model}),
 * `state` ({state, at, seconds}), `link` ("connecting", "open", "lost", "offline",
 * "foreign": the channel is another visitor's, or "resting": nobody looks)
 * and `moved` (another channel: nothing more comes of what was said).
 */
export class Connection extends EventTarget {
  #base;
  #given;
  #source = null;
  #timer = 0;
  #rest = 0;
  #quiet;
  #failures = 0;
  #last = BEGINNING;
  #lastOfSource = "";
  #running = false;
  #slices = new Slices(); // a long conversation is replayed in thousands of events at once
  #foreign = false; // the channel that the page brings is another visitor's
  #listening = new AbortController();

  /**
   * @param base address of `/chat/`
   * @param channel that of the host page, or null for the session's own
   * @param quiet whether nothing is being waited for
   */
  constructor(base, channel, quiet) {
    super();
    this.#quiet = quiet;
    this.#base = base;
    this.#given = channel;
    this.channel = channel;
    this.link = "connecting";
    this.openedAt = Date.now();
    this.busy = null; // whether the service works on an answer, as it last said
    this.skew = 0; // this machine's clock minus the server's, in milliseconds
  }

  /** Connect, and stay so until `close`. */
  open() {
    if (this.#running) {
      return;
    }
    this.#running = true;
    this.#listening = new AbortController();
    const { signal } = this.#listening;
    addEventListener("online", () => this.#renew(), { signal });
    addEventListener("offline", () => this.#tell("offline"), { signal });
    addEventListener("pagehide", () => this.#drop(), { signal });
    addEventListener("pageshow", (event) => event.persisted && this.#renew(), { signal });
    document.addEventListener("visibilitychange", () => this.#seen(), { signal });
    this.#connect();
  }

  /** Open the stream anew, from the last event: the old one may be dead. */
  renew() {
    if (this.#running) {
      this.#renew();
    }
  }

  /** Ask anew whether the service works on an answer; null: it did not say. */
  async ask() {
    await this.#session();
    return this.busy;
  }

  /** Go over to another channel, from its beginning; null is the session's own. */
  switchTo(channel) {
    this.#given = this.channel = channel;
    this.#last = BEGINNING;
    this.#slices.clear();
    this.#failures = 0;
    this.openedAt = Date.now();
    if (this.#running) {
      this.#tell("connecting");
      this.#connect();
    }
  }

  /**
   * The visitor's conversations, `{channel, title, at}`, the latest first; null: the service did not say.
   * @param search words that they contain; all conversations without
   */
  async conversations(search = "") {
    try {
      const response = await fetch(this.#address("conversations", search === "" ? {} : { search }), {
        credentials: "include",
        cache: "no-store",
        signal: AbortSignal.timeout(SESSION_MS),
      });
      const { conversations } = await response.json();
      return response.ok && Array.isArray(conversations) ? conversations : null;
    } catch {
      return null;
    }
  }

  /** Let go; what was seen stays known, and `open` goes on from there. */
  close() {
    this.#running = false;
    this.#listening.abort();
    clearTimeout(this.#rest);
    this.#drop();
  }

  /**
   * Ask the service for something.
   * @param action "dialogue", "stop", "reset", "rename" or "regenerate"
   * @param body what is sent
   * @param channel of which conversation
   * @param last whether the page goes away
   * @returns `{kind, words, reason, number, seconds}`; kind is "accepted", "rejected" (`reason` or `words` say why),
   *   "too_often" (seconds to wait), "too_long", "forbidden", "offline" or "failed"
   */
  async post(action, body = {}, channel = this.channel, last = false) {
    let response;
    let reply = {};
    try {
      response = await fetch(this.#address(action, { channel }), {
        method: "POST",
        keepalive: last,
        headers: { "Content-Type": "application/json" },
        credentials: "include",
        body: JSON.stringify(body),
        signal: AbortSignal.timeout(POST_MS),
      });
      reply = await response.json();
    } catch {
      if (response === undefined) {
        return { kind: "offline", words: "", reason: null, number: null, seconds: 0 };
      }
    }
    const said = {
      words: typeof reply.msg === "string" ? reply.msg : "",
      reason: typeof reply.reason === "string" ? reply.reason : null,
      number: typeof reply.number === "number" ? reply.number : null,
    };
    const seconds = Math.max(1, Number(response.headers.get("Retry-After")) || 1);
    const kinds = { 403: "forbidden", 413: "too_long", 429: "too_often" };
    if (response.ok) {
      return { kind: reply.code === 1 && said.words === "" ? "accepted" : "rejected", ...said, seconds };
    }
    return { kind: kinds[response.status] ?? "failed", ...said, seconds };
  }

  #address(path, query) {
    const address = new URL(path, this.#base);
    address.search = new URLSearchParams(query);
    return address;
  }

  async #connect() {
    clearTimeout(this.#timer);
    this.#drop();
    const listening = this.#listening;
    const given = this.#given;
    const session = await this.#session();
    if (!this.#running || listening.signal.aborted || this.#source !== null || given !== this.#given) {
      return;
    }
    if (session === null) {
      this.#retry();
      return;
    }
    if (this.#given === null && session.channel !== this.channel) {
      if (this.channel !== null) {
        this.#last = BEGINNING;
        this.dispatchEvent(new CustomEvent("moved"));
      }
      this.channel = session.channel;
    }
    // 204 and 403 look alike from here. Every other attempt asks for everything; what was seen is then left out below.
    const from = this.#failures % 2 === 0 ? this.#last : BEGINNING;
    this.#listen(new EventSource(
      this.#address("stream", { channel: this.channel, last_event_id: from }),
      { withCredentials: true }, // for a page of another origin, where the service allows it
    ));
  }

  async #session() {
    this.busy = null;
    try {
      const query = this.#given === null ? {} : { channel: this.#given };
      const response = await fetch(this.#address("session", query), {
        credentials: "include",
        cache: "no-store",
        signal: AbortSignal.timeout(SESSION_MS),
      });
      this.#foreign = response.status === 403;
      const session = await response.json();
      const date = Date.parse(response.headers.get("Date"));
      const now = Number.isNaN(date) ? Date.now() : date;
      this.skew = Math.abs(Date.now() - now) < 2000 ? 0 : Date.now() - now; // the header is of whole seconds
      if (!response.ok || typeof session.channel !== "string") {
        return null;
      }
      this.busy = typeof session.busy === "boolean" ? session.busy : null;
      const { title = null, models = [], model = null } = session;
      this.dispatchEvent(new CustomEvent("settings", { detail: { title, models, model } }));
      return session;
    } catch {
      return null;
    }
  }

  #listen(source) {
    this.#source = source;
    this.#lastOfSource = "";
    source.addEventListener("open", () => {
      this.#failures = 0;
      this.#tell("open");
    });
    source.addEventListener("error", () => {
      if (source.readyState === EventSource.CLOSED) {
        this.#retry();
      } else {
        this.#tell(navigator.onLine ? "lost" : "offline");
      }
    });
    source.addEventListener("message_event", (event) => {
      this.#take(event, (payload, at, id) => {
        if (typeof payload.message === "string") {
          const said = {
            html: payload.message,
            reason: typeof payload.reason === "string" ? payload.reason : null,
            number: typeof payload.number === "number" ? payload.number : null,
            source: typeof payload.branch_of === "string" ? payload.branch_of : null,
          };
          this.dispatchEvent(new CustomEvent("message", { detail: { ...said, id, at } }));
        }
      });
    });
    source.addEventListener("state_event", (event) => {
      this.#take(event, (payload, at) => {
        if (typeof payload.state === "string") {
          const time = isTime(payload.at) ? payload.at : at;
          this.dispatchEvent(new CustomEvent("state", { detail: { ...payload, at: time } }));
        }
      });
    });
  }

  // An event without an id of its own (published by another service) carries the one before it: it is always taken.
  #take(event, deliver) {
    const id = event.lastEventId;
    if (idTime(id) !== null && id !== this.#lastOfSource) {
      this.#lastOfSource = id;
      if (!isLater(id, this.#last)) {
        return;
      }
      this.#last = id;
    }
    let payload;
    try {
      payload = JSON.parse(event.data);
    } catch {
      return; // not for this page
    }
    if (payload !== null && typeof payload === "object") {
      const at = idTime(id);
      this.#slices.add(() => deliver(payload, at ?? Date.now() - this.skew, at === null ? null : id));
    }
  }

  #retry() {
    this.#drop();
    if (!this.#running) {
      return;
    }
    const pause = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** Math.min(this.#failures, 10));
    this.#failures += 1;
    this.#timer = setTimeout(() => this.#connect(), pause * (0.75 + Math.random() / 2));
    this.#tell(this.#foreign ? "foreign" : navigator.onLine ? "lost" : "offline");
  }

  // A network that came back may have left a dead connection behind: begin anew rather than wait for it.
  #renew() {
    this.#failures = 0;
    this.#tell("lost");
    this.#connect();
  }

  #seen() {
    clearTimeout(this.#rest);
    if (document.visibilityState === "hidden") {
      this.#rest = setTimeout(() => this.#sleep(), REST_MS);
    } else if (this.link === "resting") {
      this.#connect();
    } else if (this.link === "lost" && this.#source?.readyState !== EventSource.OPEN) {
      this.#renew();
    }
  }

  #sleep() {
    if (this.#source !== null && this.#quiet()) {
      this.#drop();
      this.#tell("resting");
    }
  }

  #drop() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
  }

  #tell(link) {
    if (this.link !== link) {
      this.link = link;
      this.busy = link === "open" ? this.busy : null; // it may not be the same service that comes back
      this.dispatchEvent(new CustomEvent("link", { detail: link }));
    }
  }
}
