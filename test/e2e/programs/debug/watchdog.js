// Connects the inspector of its parent with the editor's socket, which has a
// path. It tells the inspector's address first.
const net = require('net');
const { ipc, url, pid } = JSON.parse(process.env.NODE_INSPECTOR_INFO);
const editor = net.connect(ipc, () => {
  editor.write(JSON.stringify({ url, pid }) + '\n');
  const inspector = net.connect(new URL(url).port, '127.0.0.1');
  editor.pipe(inspector).pipe(editor);
  const end = () => process.exit();
  for (const s of [editor, inspector]) s.on('close', end).on('error', end);
}).on('error', () => process.exit());
