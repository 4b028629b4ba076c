import time
from pathlib import Path
def test_hold(site):
    out = Path("/tmp/dashview_site"); out.mkdir(exist_ok=True)
    site.http.post("/api/jobs", json={"type": "dataset", "data": {"source": "builtin:stories"}}).raise_for_status()
    (out / "url").write_text(site.url + " " + site.first + " " + " ".join(f"{k[:20]}={v}" for k, v in site.seeded.items()) + f" folder={site.folder}")
    while not (out / "stop").exists():
        time.sleep(1)
