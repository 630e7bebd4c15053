// Moves the link's code from the address into this tab's storage, so that it is neither bookmarked, shared nor sent on.
// It leaves the browser with the person's own form alone, once they have signed in. Nothing is redeemed here.
"use strict";
(() => {
  const key = "handoff:" + location.pathname;
  const sent = location.hash.slice(1);
  if (sent) {
    sessionStorage.setItem(key, sent);
    history.replaceState(null, "", location.pathname);
  }
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
  fetch(form.action, {
    method: "POST",
    body: new URLSearchParams(new FormData(form)),
    headers: { Accept: "text/html" },
  })
    .then((answer) => answer.text())
    .then((text) => {
      const page = new DOMParser().parseFromString(text, "text/html");
      document.title = page.title;
      document.querySelector("main").replaceWith(page.querySelector("main"));
      localise();
    })
    .catch(() => {});
})();
