// Opens a page from a file as a reader would and prints what happened as JSON; the tests judge it.
// usage: node check.mjs PAGE.html CHROMIUM [FOLDER_FOR_SCREENSHOTS]
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const [page, executablePath, shots] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const address = pathToFileURL(page).href;
const flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"];
flags.push("--disable-background-networking", "--disable-component-update", "--disable-sync");
const browser = await chromium.launch({ executablePath, args: flags });

const shoot = async (tab, name, fullPage = false) => {
  if (shots) await tab.screenshot({ path: `${shots}/${name}.png`, fullPage });
};

const found = { views: [] };
// Each width and each scheme once: the style sheet's dark part holds colours alone. All four to be looked at.
const looks = [[375, "light"], [1440, "dark"], ...(shots ? [[375, "dark"], [1440, "light"]] : [])];
for (const [width, scheme] of looks) {
  // The page's own policy forbids foreign scripts; the checker's must get in.
  const context = await browser.newContext({
    viewport: { width, height: 900 },
    colorScheme: scheme,
    bypassCSP: true,
  });
  const tab = await context.newPage();
  const view = { width, scheme, console: [], requests: [] };
  tab.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) view.console.push(message.text());
  });
  tab.on("pageerror", (error) => view.console.push(String(error)));
  tab.on("request", (request) => {
    if (request.url() !== address && !request.url().startsWith("data:")) view.requests.push(request.url());
  });
  await tab.goto(address);
  view.overflow = await tab.evaluate(
    () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
  );
  await shoot(tab, `${width}-${scheme}-top`);

  const table = tab.locator("table[data-sortable]").first();
  if (await table.count()) {
    const names = () => table.locator("tbody tr:not([hidden]) th").allTextContents();
    view.initial = await names();
    view.columns = await table.locator("thead th:visible").allTextContents();
    const worst = table.locator("thead th[data-column='3'] button.sort");
    await worst.click();
    view.sortedDown = await names();
    view.ariaSort = await table.locator("thead th[data-column='3']").getAttribute("aria-sort");
    await worst.focus();
    await tab.keyboard.press("Enter");
    view.sortedUp = await names();

    const filter = tab.locator("[data-filter='text']").first();
    await filter.fill(view.initial[0]);
    view.filtered = await names();
    view.status = await tab.locator("[role='status']").first().textContent();
    await filter.fill("no such model");
    view.none = await names();
    await filter.fill("");
    view.all = await names();

    const metrics = () => tab.locator("section:first-of-type table:visible caption").allTextContents();
    view.inSrocc = await metrics();
    await tab.locator("#in-plcc").check();
    view.inPlcc = await metrics();
    await tab.locator("#in-srocc").check();

    const link = table.locator("tbody th a").first();
    view.opened = await link.textContent();
    await link.focus();
    await tab.keyboard.press("Enter");
    const id = await link.getAttribute("data-opens");
    view.panelOpen = await tab.locator(`details#${id}`).evaluate((panel) => panel.open);
    view.focus = await tab.evaluate(() => document.activeElement?.querySelector("h3")?.textContent);
    view.hash = await tab.evaluate(() => location.hash);
    view.panelId = id;
    await shoot(tab, `${width}-${scheme}-model`);
    const panel = tab.locator("details.model:has(.shots)").first();
    await panel.evaluate((found) => (found.open = true));
    const shots = panel.locator(".shots");
    await shots.scrollIntoViewIfNeeded();
    await shoot(tab, `${width}-${scheme}-images`);
    const seen = () => shots.locator("img:visible").evaluateAll((all) => all.map((image) => image.alt));
    view.attacked = await seen();
    const original = shots.getByRole("button", { name: "original" }).first();
    await original.focus();
    await tab.keyboard.press("Enter");
    view.pressed = await original.getAttribute("aria-pressed");
    view.original = await seen();
    const status = panel.locator("[data-shots] [role='status']");
    view.kept = [];
    for (const [name, value] of [["distortion", "jpeg"], ["distortion", ""], ["way", "-1"], ["change", "0.3"]]) {
      const field = panel.locator(`[data-shots] [data-filter='${name}']`);
      await (name === "change" ? field.fill(value) : field.selectOption(value));
      view.kept.push(await status.textContent());
    }
    view.distortions = await panel.locator("[data-filter='distortion'] option").allTextContents();
    view.broken = await tab.evaluate(
      () => [...document.images].filter((image) => image.complete && !image.naturalWidth).length,
    );
  }
  // Everything open, so that the checker sees all of it.
  await tab.evaluate(() => document.querySelectorAll("details").forEach((panel) => (panel.open = true)));
  await shoot(tab, `${width}-${scheme}-whole`, true);
  view.overflowOpen = await tab.evaluate(
    () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
  );
  // Both schemes for the contrast, both widths for the structure.
  if ((width === 375) !== (scheme === "light")) {
    found.views.push(view);
    await context.close();
    continue;
  }
  await tab.evaluate(axe);
  const result = await tab.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  view.axe = result.violations.map((v) => ({
    id: v.id,
    impact: v.impact,
    help: v.help,
    nodes: v.nodes.slice(0, 3).map((n) => `${n.html.slice(0, 200)} | ${n.failureSummary ?? ""}`),
  }));
  view.axeRules = result.passes.length;
  found.views.push(view);
  await context.close();
}
// A small laptop's window: how far the first leaderboards are wider than their place.
const bare = await (await browser.newContext({ javaScriptEnabled: false })).newPage();
await bare.goto(address);
found.withoutScript = {
  pictures: await bare.locator(".shot").first().locator("img").count(),
  rows: await bare.locator("table").first().locator("tbody tr").count(),
  buttons: await bare.locator("button").count(),
};
// The switch needs no script.
await bare.locator("#in-plcc").check();
found.withoutScript.caption = await bare.locator("table:visible caption").first().textContent();
const laptop = await (await browser.newContext({ viewport: { width: 1300, height: 900 } })).newPage();
await laptop.goto(address);
await shoot(laptop, "1300-light-top");
found.leaderboards = await laptop.evaluate(() => {
  document.querySelectorAll("details").forEach((panel) => (panel.open = true));
  const places = [...document.querySelectorAll(".scroll")];
  const first = places.filter((place) => /^a1-(board|leaderboard)-srocc/.test(place.querySelector("caption").id));
  return first.map((place) => place.scrollWidth - place.clientWidth);
});
await browser.close();
console.log(JSON.stringify(found));
