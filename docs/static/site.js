// What the theme leaves out for those who read by keyboard or by ear.

function name(selector, label) {
  document.querySelector(selector)?.setAttribute("aria-label", label);
}

// What is wider than the page can be scrolled by keyboard; what fits is passed over.
function reachable() {
  const wide = 'pre, .math, .cell_output .output.text_html, article p:has(> img[src$=".svg"])';
  for (const part of document.querySelectorAll(wide)) {
    if (part.scrollWidth > part.clientWidth) part.tabIndex = 0;
    else part.removeAttribute("tabindex");
  }
}

// A notebook's results can be hidden, so that a reader predicts before looking.
function hidable() {
  if (!document.querySelector(".cell_output")) return;
  const button = document.createElement("button");
  const say = () => {
    button.textContent = document.body.classList.contains("predicting") ? "Show results" : "Hide results";
  };
  button.type = "button";
  button.className = "results";
  button.addEventListener("click", () => {
    document.body.classList.toggle("predicting");
    say();
  });
  say();
  document.querySelector("article h1")?.after(button);
}

document.addEventListener("DOMContentLoaded", () => {
  name("aside.sidebar-drawer", "The site");
  name("aside.toc-drawer", "This page");
  reachable();
  hidable();
});
addEventListener("load", reachable); // once fonts are there
addEventListener("resize", reachable);
