"""Report the known vulnerabilities and the licence of every package, and write a CycloneDX SBOM.

`make audit` runs this script. It covers the packages that are needed at run time (the project with its extras `local`
and `torch`, and their dependencies), in the versions installed in `.venv`, and the JavaScript files that the dashboard
ships. It does not cover packages that only tests need. It writes `requirements.txt`, `sbom.cdx.json` and `licences.md`
into `build/supply-chain/`.

Exit status: 0 when every package was checked and nothing was found; 1 when there is a vulnerability or a licence that
is not allowed; 3 when nothing was found, but no advisory service answered for some packages.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
VENDORED = ROOT / "services" / "dashboard" / "static" / "vendor" / "manifest.json"
EXTRAS = ("local", "torch")
SERVICES = ("pypi", "osv")
"""Advisory services of pip-audit. The first service is queried about all packages, each later one only about packages
for which no earlier one answered."""
SERVICE_SECONDS = 300
"""Maximum duration of one run of pip-audit, in seconds."""
LICENCES = (
    *("0BSD", "Apache", "BSD", "BSL-1.0", "CC0", "CNRI-Python", "HPND", "ISC", "LGPL", "MIT", "MPL", "Mozilla"),
    *("NVIDIA", "PSF", "Python", "Unlicense", "Zlib", "ZPL"),
)
"""The licence of a package must contain one of these words. They name permissive licences, and licences such as LGPL
and MPL that bind only the package itself."""
COPYLEFT = re.compile(r"(?<!L)GPL|(?<!Lesser )General Public")
"""The licence of a package must not match this pattern, because such a licence would apply to all of Tidal."""


def main() -> int:
    """Write all three reports. The docstring of the module describes the exit status."""
    parser = argparse.ArgumentParser(
        description="Report known vulnerabilities, SBOM and licences of the packages that are needed at run time."
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "supply-chain", help="folder for the reports")
    folder: Path = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    packages = running()
    requirements = folder / "requirements.txt"
    versions = {name: package.version.partition("+")[0] for name, package in packages.items()}
    requirements.write_text("".join(f"{name}=={version}\n" for name, version in versions.items()), encoding="utf-8")

    print_line(f"[1/3] SBOM of {len(packages)} packages")
    bom = sbom(packages)
    (folder / "sbom.cdx.json").write_text(json.dumps(bom, indent=1) + "\n", encoding="utf-8")

    print_line("[2/3] licences")
    licences = {f"{item['name']} {item['version']}": licence(item) for item in bom["components"]}
    table = "".join(f"| {name} | {words} |\n" for name, words in sorted(licences.items(), key=lambda kv: kv[0].lower()))
    (folder / "licences.md").write_text(f"| package | licence |\n|---|---|\n{table}", encoding="utf-8")
    refused = [f"{name}: {words}" for name, words in licences.items() if not allowed(words)]
    for line in refused:
        print_line(f"licence not allowed: {line}")

    print_line("[3/3] known vulnerabilities")
    vulnerable, unknown = audit(versions, folder)
    for line in vulnerable:
        print_line(f"vulnerable: {line}")
    checked = len(versions) - len(unknown)
    print_line(
        f"{checked} of {len(versions)} packages checked, {len(vulnerable)} vulnerabilities, "
        f"{len(licences)} licences, {len(refused)} not allowed; files in {folder}"
    )
    if unknown:
        print_line(
            f"NOT CHECKED for vulnerabilities: {len(unknown)} packages ({', '.join(unknown[:5])}, …). "
            "No advisory service answered for them; run this again where the internet is reachable."
        )
    return 1 if vulnerable or refused else 3 if unknown else 0


def running() -> dict[str, Distribution]:
    """Return the packages that the project needs at run time with EXTRAS, by canonical name, sorted."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [("tidal", extra) for extra in EXTRAS]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue  # the package is needed only on another platform, or by an extra that is not installed
        found[name] = package
        for text in package.requires or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(needed.name), more) for more in ("", *needed.extras)]
    del found["tidal"]
    return dict(sorted(found.items()))


def sbom(packages: dict[str, Distribution]) -> dict[str, Any]:
    """Return the SBOM that CycloneDX's tool writes, reduced to `packages`, with the scripts of the dashboard added."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", sys.executable]
    output = subprocess.run(
        [*command, "--pyproject", str(ROOT / "pyproject.toml"), "--output-format", "JSON"],
        capture_output=True,
        text=True,
        check=True,
    )
    bom: dict[str, Any] = json.loads(output.stdout)
    bom["components"] = [item for item in bom["components"] if canonicalize_name(item["name"]) in packages]
    for item in bom["components"]:
        if not item.get("licenses") and (words := stated(packages[canonicalize_name(item["name"])])):
            item["licenses"] = [{"license": {"name": words}}]
    for file in json.loads(VENDORED.read_text(encoding="utf-8")):
        if file["file"].endswith(".js"):
            name, _, version = file["package"].rpartition("@")
            bom["components"].append(
                {
                    "type": "library",
                    "bom-ref": f"vendor/{file['file']}",
                    "name": f"{name} ({file['file']})",
                    "version": version,
                    "purl": f"pkg:npm/{name}@{version}",
                    "licenses": [{"license": {"id": file["licence"]}}],
                    "hashes": [{"alg": "SHA-256", "content": file["sha256"]}],
                }
            )
    known = {item["bom-ref"] for item in bom["components"]} | {bom["metadata"]["component"]["bom-ref"]}
    bom["dependencies"] = [
        {**entry, "dependsOn": [ref for ref in entry.get("dependsOn", ()) if ref in known]}
        for entry in bom["dependencies"]
        if entry["ref"] in known
    ]
    return bom


def licence(component: dict[str, Any]) -> str:
    """Return the licences of a component in one line, or an empty string if it states none.

    Only the last part of a licence classifier is used.
    """
    entries = component.get("licenses") or ()
    words = [entry.get("expression") or entry["license"].get("id") or entry["license"]["name"] for entry in entries]
    return " / ".join(dict.fromkeys(word.rpartition(" :: ")[2] for word in words if word != "License :: OSI Approved"))


def stated(package: Distribution) -> str:
    """Return the first line of the licence file in a package. It is used for packages whose metadata names no
    licence."""
    texts = [
        *(package.metadata.get_all("License") or ()),
        *(package.read_text(f"licenses/{name}") or "" for name in FILES),
    ]
    return next((text.strip().splitlines()[0] for text in texts if text.strip()), "")


FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md")


def allowed(words: str) -> bool:
    """Return whether a licence text contains one of LICENCES and does not match COPYLEFT."""
    return not COPYLEFT.search(words) and any(word in words for word in LICENCES)


def audit(versions: dict[str, str], folder: Path) -> tuple[list[str], list[str]]:
    """Return the vulnerabilities, one line each, and the names of the packages for which no service answered."""
    vulnerable: list[str] = []
    unknown = list(versions)
    for service in SERVICES:
        if not unknown:
            break
        listed = folder / "to-check.txt"
        listed.write_text("".join(f"{name}=={versions[name]}\n" for name in unknown), encoding="utf-8")
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(listed), "--no-deps", "--disable-pip"]
        options = [
            "--vulnerability-service",
            service,
            "--format",
            "json",
            "--progress-spinner",
            "off",
            "--timeout",
            "15",
        ]
        try:
            done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=SERVICE_SECONDS)
            packages = json.loads(done.stdout)["dependencies"]
        except (subprocess.TimeoutExpired, ValueError, KeyError) as error:
            reason = error if isinstance(error, subprocess.TimeoutExpired) else last_line(done.stderr)
            print_line(f"the advisory service {service} could not be reached: {reason}")
            continue
        finally:
            listed.unlink()
        answered = {canonicalize_name(item["name"]): item for item in packages if "skip_reason" not in item}
        if not answered:
            print_line(f"the advisory service {service} reported no package, so it probably was not reached")
        unknown = [name for name in unknown if name not in answered]
        for name, item in answered.items():
            for flaw in item["vulns"]:
                fixed = f", fixed in {', '.join(flaw['fix_versions'])}" if flaw["fix_versions"] else ", no fix yet"
                vulnerable.append(f"{name} {item['version']}: {flaw['id']}{fixed}")
    return vulnerable, unknown


def last_line(text: str) -> str:
    """Return the last line of a command's output, cut to 200 characters."""
    return (text.strip().splitlines() or ["it printed nothing"])[-1][:200]


def print_line(text: str) -> None:
    """Print a line at once, without buffering, so that progress is visible."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
