// Moves the link's code from the address into this tab's storage, so that it is neither bookmarked, shared nor
// sent on. Nothing is redeemed here: that takes the person's own click.
"use strict";
(() => {
  const key = "handoff:" + location.pathname;
  const sent = location.hash.slice(1);
  if (sent) {
    sessionStorage.setItem(key, sent);
    history.replaceState(null, "", location.pathname);
  }
  const kept = sessionStorage.getItem(key);
  const field = document.getElementById("secret");
  if (kept && field) {
    field.value = kept;
    document.getElementById("kept").hidden = false;
  }
})();
