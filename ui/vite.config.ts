import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";

// Mode "fake" (npm run dev, npm run build:fake) builds the page on the fake cluster; the shipped bundle has no trace of it.
export default defineConfig({
  plugins: [svelte()],
  // Paths relative to the page: the same files work under tauri://localhost and from any folder.
  base: "./",
  build: { target: "safari16", assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  // State files use runes: tests need Svelte's browser runtime, not the one for rendering on a server.
  resolve: process.env["VITEST"] === undefined ? {} : { conditions: ["browser"] },
  test: { include: ["src/**/*.test.ts"], environment: "node" },
});
