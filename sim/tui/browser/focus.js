// Keys go to the terminal without a click. The terminal is made by textual.js as the page has loaded.
window.addEventListener("load", () => document.querySelector(".xterm-helper-textarea").focus());
