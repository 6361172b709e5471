// What the package's README asks for: the package finds its module by its own address, which a development server's copies lack.
export default {
  build: { target: "es2022" },
  optimizeDeps: { exclude: ["ralu"] },
};
