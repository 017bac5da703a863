{
  const data = JSON.parse(document.getElementById("explorer-data").textContent);
  const root = document.querySelector(".explorer");
  const find = (selector) => root.querySelector(selector);
  const slider = find("input[type=range]");
  const widest = Math.max(...data.distances.flat(), 1e-9);  // of the bars
  const state = { source: 0, context: 0 };

  function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  const image = (view, alt) =>
    element("img", { src: `data:image/jpeg;base64,${data.images[view]}`, alt });
  const tokens = (length) => (length ? `${length} tokens` : "no context");
  const observed = () => data.environments[state.context].observed;

  function bars(view) {
    return data.groups.map((group, g) => {
      const distance = data.distances[view][g];
      const filled = element("span");
      filled.style.width = `${100 * distance / widest}%`;
      const kind = observed()[g] ? "distance observed" : "distance";
      return element("span", { className: kind }, `${group} ${distance.toFixed(1)}`,
        element("span", { className: "bar" }, filled));
    });
  }

  function describe(views, length) {
    const mean = (g) => views.reduce((sum, v) => sum + data.distances[v][g], 0) / views.length;
    const parts = data.groups.map((group, g) => {
      const kind = observed()[g] ? "shown" : "hidden";
      const all = data.means[state.source][g].toFixed(2);
      return `${mean(g).toFixed(2)} in ${group} (${kind}; all views: ${all})`;
    });
    const { name } = data.environments[state.context];
    const where = length ? `After ${length} tokens of the ${name} context` : `Without a context`;
    return `${where}, the ${views.length} nearest views are on average ${parts.join(" and ")} from`
      + " the target.";
  }

  function show() {
    const length = data.lengths[slider.value];
    const views = data.nearest[state.source][state.context][slider.value];
    const target = data.targets[state.source];
    find("output").textContent = tokens(length);
    slider.setAttribute("aria-valuetext", tokens(length));
    const given = { source: data.sources[state.source], target };
    find(".given").replaceChildren(...Object.entries(given).map(([name, view]) =>
      element("div", { className: name }, image(view, `The ${name}`),
        element("span", { className: "name" }, name))));
    find(".nearest").replaceChildren(...views.map((view, k) => {
      const name = view === target ? "the target" : `nearest ${k + 1}`;
      return element("li", { className: view === target ? "target" : "" },
        image(view, ""), element("span", { className: "name" }, name), ...bars(view));
    }));
    find(".status").textContent = describe(views, length);
  }

  function choices(place, key, contents) {
    contents.forEach((content, i) => {
      const input = element("input", { type: "radio", name: `explorer-${key}`, checked: i === 0 });
      input.addEventListener("change", () => { state[key] = i; show(); });
      place.append(element("label", { className: "choice" }, input, content));
    });
  }

  choices(find(".sources"), "source",
    data.sources.map((view, i) => image(view, `source ${i + 1}`)));
  choices(find(".contexts"), "context",
    data.environments.map(({ name }) => element("span", { textContent: name })));
  slider.value = data.lengths.length - 1;
  slider.addEventListener("input", show);
  find(".length").hidden = data.lengths.length < 2;
  show();
  root.hidden = false;
}
