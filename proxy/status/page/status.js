// Replaces the parts of the page that the service sends. Without this script, the page is a snapshot and says so.

const FIRST_PAUSE_MS = 1000;
const LONGEST_PAUSE_MS = 15_000;
const UNAUTHORIZED = 401;

const events = document.querySelector("main").dataset.events;
const link = document.getElementById("link");
let source = null;
let timer = 0;
let pause = FIRST_PAUSE_MS;

function tell(state) {
  if (link.dataset.state !== state) {
    link.dataset.state = state;
    link.textContent = link.dataset[state];
  }
}

function close() {
  clearTimeout(timer);
  source?.close();
  source = null;
}

function open() {
  close();
  source = new EventSource(events);
  source.addEventListener("part", ({ data }) => {
    const part = new DOMParser().parseFromString(data, "text/html").body.firstElementChild;
    document.getElementById(part.id)?.replaceWith(part);
    pause = FIRST_PAUSE_MS;
    tell("live");
  });
  source.addEventListener("error", () => {
    tell(navigator.onLine ? "lost" : "offline");
    if (source.readyState === EventSource.CLOSED) {
      timer = setTimeout(retry, pause); // the browser reconnects by itself only after a broken connection
      pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
    }
  });
}

async function retry() {
  try {
    const response = await fetch(location.href, { method: "HEAD", cache: "no-store" });
    if (response.status === UNAUTHORIZED) {
      location.reload(); // the session has ended: the service asks for the key
      return;
    }
  } catch {
    // The service cannot be reached: opening the stream fails too, and the next attempt waits longer.
  }
  open();
}

// A tab that nobody sees needs no events. A browser opens few connections to a site without HTTP/2.
function follow() {
  if (document.visibilityState === "hidden") {
    close();
  } else if (source === null) {
    open();
  }
}

addEventListener("offline", () => tell("offline"));
addEventListener("online", open);
addEventListener("pagehide", close);
addEventListener("pageshow", follow);
document.addEventListener("visibilitychange", follow);
follow();
