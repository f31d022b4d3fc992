import tseslint from 'typescript-eslint';

/** The type-aware rules are the valuable ones here: a forgotten await loses errors. */
export default tseslint.config(
  { ignores: ['dist/', 'node_modules/', '.build/', 'coverage/', 'eslint.config.js', '**/*.d.ts'] },
  {
    files: ['**/*.ts'],
    languageOptions: {
      parser: tseslint.parser,
      parserOptions: { project: './tsconfig.json', tsconfigRootDir: import.meta.dirname },
    },
    plugins: { '@typescript-eslint': tseslint.plugin },
    rules: {
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-misused-promises': 'error',
      '@typescript-eslint/await-thenable': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': [
        'error',
        { considerDefaultExhaustiveForUnions: true },
      ],
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/no-non-null-assertion': 'error',
      '@typescript-eslint/require-await': 'error',
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/no-unnecessary-type-assertion': 'error',
      '@typescript-eslint/only-throw-error': 'error',
      '@typescript-eslint/prefer-readonly': 'error',
      eqeqeq: 'error',
      'no-var': 'error',
      'prefer-const': 'error',
      'no-fallthrough': 'error',
      'no-empty': 'error',
      'no-console': 'error',
    },
  },
  {
    // Programs talk to a person; the server logs through observe/.
    files: ['scripts/**', 'src/cli/**', 'jepsen/**', 'test/**'],
    rules: { 'no-console': 'off' },
  },
  {
    files: ['test/**'],
    // A test double may have to be async by its interface without anything to wait for.
    rules: { '@typescript-eslint/require-await': 'off' },
  },
);
