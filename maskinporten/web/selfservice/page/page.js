// Makes the page from the OpenAPI document: one form for each operation. Whatever comes from the
// document or an answer is put in as text, never as markup.

const place = (id) => document.getElementById(id);

function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

function resolved(schema, api) {
  return schema?.$ref ? api.components.schemas[schema.$ref.split("/").pop()] : schema ?? {};
}

// A value of the schema's shape, to begin with: only what must be there, or a little of what may.
function sample(schema, api, depth = 0) {
  const found = resolved(schema, api);
  if (found.allOf) return Object.assign({}, ...found.allOf.map((one) => sample(one, api, depth)));
  if (found.anyOf) return sample(found.anyOf.find((one) => one.type !== "null"), api, depth);
  if (found.default !== undefined && found.default !== null) return found.default;
  if (found.enum) return found.enum[0];
  if (found.type === "object") {
    const wanted = found.required ?? [];
    const entries = Object.entries(found.properties ?? {});
    const some = wanted.length ? entries.filter(([name]) => wanted.includes(name)) : entries.slice(0, 6);
    return depth > 2 ? {} : Object.fromEntries(some.map(([name, of]) => [name, sample(of, api, depth + 1)]));
  }
  if (found.type === "array") return depth > 2 ? [] : [sample(found.items, api, depth + 1)];
  return { integer: 0, number: 0, boolean: true, string: "" }[found.type] ?? null;
}

function field(parameter) {
  const schema = parameter.schema ?? {};
  const control = schema.type === "boolean"
    ? make("select", {}, ...["", "true", "false"].map((value) => make("option", { value }, value)))
    : make("input", { type: "text", spellcheck: false });
  Object.assign(control, { name: parameter.name, required: Boolean(parameter.required) });
  const about = ` ${parameter.required ? "(must be given) " : ""}${parameter.description ?? ""}`;
  return [make("label", {}, parameter.name, make("small", {}, about), control), control];
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function operationForm(method, path, operation, base, api) {
  const form = make("form");
  const controls = (operation.parameters ?? []).map((parameter) => {
    const [label, control] = field(parameter);
    form.append(label);
    return [parameter, control];
  });
  const [type, content] = Object.entries(operation.requestBody?.content ?? {})[0] ?? [];
  let body = null;
  if (type) {
    body = make("textarea", { name: "body", spellcheck: false });
    if (type === "application/json") body.value = JSON.stringify(sample(content.schema, api), null, 2);
    form.append(make("label", {}, "Body", make("small", {}, ` ${type}`), body));
  }
  const output = make("output");
  form.append(make("button", { type: "submit" }, "Send"), output);

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    let url = base + path;
    const query = new URLSearchParams();
    const headers = {};
    for (const [parameter, control] of controls) {
      const value = control.value;
      if (parameter.in === "path") {
        url = url.replace(`{${parameter.name}}`, encodeURIComponent(value));
      } else if (value !== "") {
        if (parameter.in === "query") query.set(parameter.name, value);
        else headers[parameter.name] = value;
      }
    }
    if (query.size) url += `?${query}`;
    if (type) headers["Content-Type"] = type;
    const shown = { ...headers };
    const needed = (operation.security ?? []).length > 0;
    const token = place("token").value.trim();
    if (needed && token) {
      headers.Authorization = `Bearer ${token}`;
      shown.Authorization = "Bearer $TOKEN";
    }
    const curl = ["curl", "-X", method.toUpperCase(), quoted(location.origin + url)];
    for (const [name, value] of Object.entries(shown)) {
      curl.push("-H", name === "Authorization" ? `"${name}: ${value}"` : quoted(`${name}: ${value}`));
    }
    if (body) curl.push("--data-binary", quoted(body.value));
    output.replaceChildren(make("h3", {}, "The same from a shell"), make("pre", {}, curl.join(" ")));
    try {
      const answer = await fetch(url, {
        method: method.toUpperCase(), headers, body: body?.value, credentials: "omit", redirect: "error",
      });
      const text = await answer.text();
      let pretty = text;
      try { pretty = JSON.stringify(JSON.parse(text), null, 2); } catch { /* Not JSON; as it is. */ }
      const about = [...answer.headers].filter(([name]) => /^(etag|link|registry-revision|retry-after)$/.test(name));
      output.prepend(
        make("h3", {}, "Answer ", make("span", { className: "status" }, String(answer.status))),
        make("pre", { className: "answer" }, about.map((pair) => `${pair.join(": ")}\n`).join(""), pretty),
      );
    } catch (fault) {
      output.prepend(make("h3", {}, "No answer"), make("pre", { className: "answer" }, String(fault)));
    }
  });
  return form;
}

function section(method, path, operation, base, api) {
  const needs = (operation.security ?? []).flatMap((one) => Object.values(one).flat());
  const words = !(operation.security ?? []).length ? "Needs no token." : needs.length
    ? `Needs a token with one of: ${needs.join(", ")}` : "Needs a token.";
  const inside = make("div");
  const details = make(
    "details", { id: operation.operationId },
    make("summary", {}, make("span", { className: `method ${method}` }, method.toUpperCase()),
      make("code", {}, path), ` ${operation.summary ?? ""}`),
    inside,
  );
  details.dataset.words = `${method} ${path} ${operation.summary} ${words}`.toLowerCase();
  details.addEventListener("toggle", () => {
    if (inside.childElementCount) return;
    const [status, success] = Object.entries(operation.responses)[0];
    const schema = Object.values(success.content ?? {})[0]?.schema;
    inside.append(make("p", { className: "needs" }, words), operationForm(method, path, operation, base, api));
    if (schema) {
      inside.append(make("h3", {}, `An answer (${status}) looks like`),
        make("pre", {}, JSON.stringify(sample(schema, api), null, 2)));
    }
  });
  return details;
}

async function show() {
  const main = place("operations");
  try {
    const api = await (await fetch("../v3/api-docs", { credentials: "omit" })).json();
    place("title").textContent = api.info.title;
    document.title = api.info.title;
    place("about").textContent = api.info.description.replaceAll("`", "");
    const groups = new Map();
    for (const [path, item] of Object.entries(api.paths)) {
      const base = (item.servers ?? api.servers)[0].url.replace(/\/$/, "");
      for (const method of ["get", "post", "put", "delete"]) {
        const operation = item[method];
        if (!operation) continue;
        const tag = operation.tags?.[0] ?? "";
        if (!groups.has(tag)) groups.set(tag, make("section", {}, make("h2", {}, tag)));
        groups.get(tag).append(section(method, path, operation, base, api));
      }
    }
    main.replaceChildren(...groups.values());
    place("filter").addEventListener("input", (event) => {
      const words = event.target.value.toLowerCase().split(/\s+/);
      for (const details of main.querySelectorAll("details")) {
        details.hidden = !words.every((word) => details.dataset.words.includes(word));
      }
    });
    if (location.hash) {
      const named = document.getElementById(location.hash.slice(1));
      if (named instanceof HTMLDetailsElement) { named.open = true; named.scrollIntoView(); }
    }
  } catch (fault) {
    main.replaceChildren(make("p", {}, `The document could not be read: ${fault}`));
  }
  main.setAttribute("aria-busy", "false");
}

show();
