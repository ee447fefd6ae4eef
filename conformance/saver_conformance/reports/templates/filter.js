// Hides what the reader does not ask for. Without it, everything is there.
"use strict";

const form = document.querySelector(".filters");

const apply = () => {
  const chosen = new FormData(form);
  const statuses = chosen.get("show").split(" ").filter(Boolean);
  const part = (chosen.get("saver") ?? "").trim().toLowerCase();
  for (const element of document.querySelectorAll("[data-statuses], [data-status]")) {
    const { subject, statuses: several, status } = element.dataset;
    const isNamed = subject === undefined || subject.toLowerCase().includes(part);
    const isWanted =
      !statuses.length || (several ?? status).split(" ").some((one) => statuses.includes(one));
    element.hidden = !(isNamed && isWanted);
  }
  const subjects = [...document.querySelectorAll("article, main > section[data-subject]")];
  const shown = subjects.filter((element) => !element.hidden).length;
  const isFiltered = statuses.length > 0 || part !== "";
  form.querySelector("output").textContent =
    isFiltered && subjects.length > 1 ? `${shown} of ${subjects.length} savers` : "";
};

// A link may lead to what is hidden, and older browsers do not unfold what it leads into.
const reveal = (hash) => {
  let element = document.getElementById(decodeURIComponent(hash.slice(1)));
  for (; element; element = element.parentElement) {
    element.hidden = false;
    if (element.tagName === "DETAILS") element.open = true;
  }
};

form.addEventListener("input", apply);
form.addEventListener("submit", (event) => event.preventDefault());
document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]');
  if (link) reveal(link.hash);
});
addEventListener("hashchange", () => reveal(location.hash));
form.hidden = false;
apply(); // a browser may have kept what was chosen before
reveal(location.hash);
