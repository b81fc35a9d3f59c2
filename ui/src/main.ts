// Chooses the program behind the page and starts it.

import { mount } from "svelte";
import AppView from "./App.svelte";
import "./app.css";
import type { Backend } from "./backend/backend";
import { applyTheme, savedTheme } from "./components/theme";
import { App } from "./state/app.svelte";

async function backend(): Promise<Backend> {
  // A constant of the build: the shipped bundle holds no fake.
  if (import.meta.env.MODE === "fake") return (await import("./backend/fake-stage")).stagedBackend();
  return (await import("./backend/tauri")).tauriBackend();
}

applyTheme(savedTheme());
const target = document.querySelector("#app");
if (target === null) throw new Error("the page has no #app");
mount(AppView, { target, props: { app: new App(await backend(), localStorage) } });
