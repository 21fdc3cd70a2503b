// What the theme leaves out for those who read by keyboard or by ear.

function name(selector, label) {
  document.querySelector(selector)?.setAttribute("aria-label", label);
}

// Code or a formula wider than the page can be scrolled by keyboard; what fits is passed over.
function reachable() {
  for (const part of document.querySelectorAll("pre, .math")) {
    if (part.scrollWidth > part.clientWidth) part.tabIndex = 0;
    else part.removeAttribute("tabindex");
  }
}

document.addEventListener("DOMContentLoaded", () => {
  name("aside.sidebar-drawer", "The site");
  name("aside.toc-drawer", "This page");
  reachable();
});
addEventListener("load", reachable); // once fonts are there
addEventListener("resize", reachable);
