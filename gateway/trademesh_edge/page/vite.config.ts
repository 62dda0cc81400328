import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

// The generated contracts lie outside this folder and find the protobuf runtime here.
export default defineConfig({
  base: "/",
  resolve: {
    alias: { "@trademesh/contracts": here("../../../gen/typescript/src") },
    dedupe: ["@bufbuild/protobuf"],
  },
  server: { proxy: { "/v1/socket": { target: "ws://127.0.0.1:8765", ws: true } } },
  build: {
    outDir: process.env.TRADEMESH_PAGE_OUT ?? "../static",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: false,
    reportCompressedSize: false,
  },
});
