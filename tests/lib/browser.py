#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""A headless Chromium, driven over its pipe (the DevTools protocol).

  browser.py URL [--size WxH] [--scheme light|dark] [--wait EXPRESSION]
             [--run EXPRESSION]... [--shot FILE]

Waits until the page's JavaScript EXPRESSION is true (at most a minute), then
prints the value of each --run, one JSON a line.  Fails, saying why, when the page
threw, wrote an error to the console, broke its content security policy, or is
wider than its window.
"""
import argparse, base64, json, os, select, shutil, subprocess, sys, tempfile, time


class Browser:
    def __init__(self, size, scheme):
        self.profile = tempfile.mkdtemp(prefix="espalier-browser-")
        self.faults, self.rest, self.last = [], b"", 0
        in_read, self.to = os.pipe()
        self.back, out_write = os.pipe()

        def place():                # 3 and 4 are where Chromium looks
            a, b = os.dup(in_read), os.dup(out_write)
            os.dup2(a, 3), os.dup2(b, 4)
        self.process = subprocess.Popen(
            ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage",
             "--no-first-run", "--disable-background-networking", "--remote-debugging-pipe",
             "--user-data-dir=" + self.profile, "about:blank"],
            preexec_fn=place, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": self.profile})
        os.close(in_read), os.close(out_write)
        self.session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Audits"):
            self.call(domain + ".enable")
        self.call("Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1,
                  mobile=size[0] < 600)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def receive(self):
        while b"\0" not in self.rest:
            if not select.select([self.back], [], [], 60)[0]:
                raise SystemExit("browser: no answer for a minute")
            data = os.read(self.back, 1 << 16)
            if not data:
                raise SystemExit("browser: it ended")
            self.rest += data
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def event(self, e):
        method, p = e.get("method"), e.get("params", {})
        if method == "Runtime.exceptionThrown":
            d = p["exceptionDetails"]
            self.faults.append("exception: " + d.get("exception", {}).get("description", d["text"]))
        elif method == "Runtime.consoleAPICalled" and p["type"] in ("error", "assert", "warning"):
            self.faults.append("console: " + " ".join(str(a.get("value", a.get("description"))) for a in p["args"]))
        elif method == "Log.entryAdded" and p["entry"]["level"] == "error":
            self.faults.append("log: " + p["entry"]["text"] + " " + p["entry"].get("url", ""))
        elif method == "Audits.issueAdded" and p["issue"]["code"] == "ContentSecurityPolicyIssue":
            self.faults.append("policy: " + json.dumps(p["issue"]["details"]))

    def call(self, method, **params):
        self.last += 1
        message = {"id": self.last, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") != self.last:
                self.event(answer)
                continue
            if "error" in answer:
                raise SystemExit("browser: %s: %s" % (method, answer["error"]["message"]))
            return answer["result"]

    def value(self, expression):
        r = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in r:
            raise SystemExit("browser: %s: %s" % (expression, r["exceptionDetails"].get("exception", {}).get("description")))
        return r["result"].get("value")

    def wait(self, expression):
        end = time.monotonic() + 60
        while not self.value(expression):
            if time.monotonic() > end:
                raise SystemExit("browser: never true: %s\n%s\n%s" % (
                    expression, "\n".join(self.faults), self.value("document.body ? document.body.innerText : ''")))
            time.sleep(0.1)

    def shot(self, file):
        png = self.call("Page.captureScreenshot", format="png")["data"]
        with open(file, "wb") as f:
            f.write(base64.b64decode(png))

    def end(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("url")
    a.add_argument("--size", default="1440x900")
    a.add_argument("--scheme", default="light")
    a.add_argument("--wait", default="!document.getElementById('main').hidden")
    a.add_argument("--run", action="append", default=[])
    a.add_argument("--shot")
    a = a.parse_args()
    size = [int(n) for n in a.size.split("x")]
    b = Browser(size, a.scheme)
    try:
        b.call("Page.navigate", url=a.url)
        b.wait("document.readyState === 'complete'")
        b.wait(a.wait)
        for expression in a.run:
            print(json.dumps(b.value(expression), ensure_ascii=False))
        if a.shot:
            b.shot(a.shot)
        wide = b.value("document.documentElement.scrollWidth")
        if wide > size[0]:
            b.faults.append("the page is %d wide, the window %d" % (wide, size[0]))
    finally:
        b.end()
    for fault in b.faults:
        print(fault, file=sys.stderr)
    return 1 if b.faults else 0


sys.exit(main())
