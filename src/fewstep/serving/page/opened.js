// A page that was opened as a file says why it stays empty: browsers load its parts from servers only.

if (location.protocol === "file:") {
  const place = document.querySelector("#trouble");
  place.textContent =
    "This page was opened as a file, and a browser loads its parts from a web server only. Start one in " +
    "its folder, python -m http.server, and open http://localhost:8000";
  place.hidden = false;
}
