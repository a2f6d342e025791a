// A conversation as a Markdown file.

const NAME_CHARS_MAX = 60;

/** Offer a text as a file. */
export function offerFile(title, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/markdown;charset=utf-8" }));
  link.download = `${fileName(title)}.md`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function fileName(title) {
  const name = title.replace(/[\p{Cc}\\/:*?"<>|]+/gu, " ").replace(/\s+/g, " ").trim();
  return [...name].slice(0, NAME_CHARS_MAX).join("").replace(/^\.+/, "").trim() || "chat";
}
