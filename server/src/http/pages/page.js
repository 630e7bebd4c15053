// Moves the link's code from the address into this tab's storage, so that it is neither bookmarked, shared nor sent on.
// It leaves the browser with the person's own form alone, once they have signed in. Nothing is redeemed here.
"use strict";
(() => {
  if (/\/(sign-out|signed-out)$/.test(location.pathname)) {
    sessionStorage.clear();
    return;
  }
  const key = "handoff:" + location.pathname;
  const keep = () => {
    const sent = location.hash.slice(1);
    if (!sent) return false;
    sessionStorage.setItem(key, sent);
    history.replaceState(null, "", location.pathname);
    return true;
  };
  keep();
  // The link again, in the tab where it was opened before.
  addEventListener("hashchange", () => keep() && location.reload());
  // Times in the reader's own zone.
  const localise = () => {
    for (const time of document.querySelectorAll("time")) {
      time.textContent = new Date(time.dateTime).toLocaleString([], { dateStyle: "full", timeStyle: "short" });
    }
  };
  localise();
  const kept = sessionStorage.getItem(key);
  const form = document.getElementById("open");
  if (!kept || !form) return;
  form.elements.secret.value = kept;
  // Signed in, with the code at hand: what it leads to is shown in place of this form. Where that fails the form stays.
  const button = form.querySelector("button");
  button.disabled = true;
  fetch(form.action, {
    method: "POST",
    body: new URLSearchParams(new FormData(form)),
    headers: { Accept: "text/html" },
  })
    .then((answer) => answer.text())
    .then((text) => {
      const main = new DOMParser().parseFromString(text, "text/html").querySelector("main");
      if (!main) throw new Error("no page of ours");
      document.querySelector("main").replaceWith(main);
      localise();
      // So that it is read out, and the keyboard goes on from there.
      main.querySelector("h1").focus();
    })
    .catch(() => { button.disabled = false; });
})();
