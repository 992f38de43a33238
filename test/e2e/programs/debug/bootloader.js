// What js-debug's bootloader does: it opens the inspector on any port and
// starts a watchdog, which connects that with the editor's socket.
const options = JSON.parse(process.env.VSCODE_INSPECTOR_OPTIONS || '{}');
if (options.inspectorIpc) {
  const inspector = require('inspector');
  const { spawn } = require('child_process');
  inspector.open(0, '127.0.0.1', false);
  const info = { ipc: options.inspectorIpc, url: inspector.url(), pid: process.pid };
  const env = { ...process.env, NODE_OPTIONS: '', VSCODE_INSPECTOR_OPTIONS: '', NODE_INSPECTOR_INFO: JSON.stringify(info) };
  spawn(process.execPath, [options.watchdog], { env, stdio: 'ignore', detached: true }).unref();
  inspector.waitForDebugger();
}
