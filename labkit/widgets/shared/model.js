// A widget's model in a page without a kernel: the part of anywidget's model that widgets use.

/** Traits by name, with `get`, `set`, `on`, `off` and `save_changes` as anywidget's model has them. */
export class PageModel {
  constructor(traits) {
    this.traits = { ...traits };
    this.listeners = new Map();
  }

  get(name) {
    return this.traits[name];
  }

  set(name, value) {
    if (this.traits[name] === value) return;
    this.traits[name] = value;
    for (const listener of [...(this.listeners.get(`change:${name}`) ?? [])]) listener();
  }

  save_changes() {}

  send() {}

  on(event, listener) {
    this.listeners.set(event, [...(this.listeners.get(event) ?? []), listener]);
  }

  off(event, listener) {
    this.listeners.set(event, (this.listeners.get(event) ?? []).filter((each) => each !== listener));
  }
}
