// Where a keyboard covers the page (iOS does not shrink it), keeps an element inside what is left to see.

/** Set an element's height to the visible part of the window; gives a function that ends it. */
export function keepVisible(element) {
  const view = window.visualViewport;
  if (!view) {
    return () => {};
  }
  const fit = () => {
    const covered = view.scale === 1 && innerHeight - view.height > 80;
    element.style.height = covered ? `${view.height}px` : "";
    element.style.transform = covered && view.offsetTop > 0 ? `translateY(${view.offsetTop}px)` : "";
  };
  view.addEventListener("resize", fit);
  view.addEventListener("scroll", fit);
  fit();
  return () => {
    view.removeEventListener("resize", fit);
    view.removeEventListener("scroll", fit);
    element.style.height = element.style.transform = "";
  };
}
