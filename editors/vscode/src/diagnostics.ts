// Mistakes of configuration files, where they are.

import * as path from 'node:path';
import * as vscode from 'vscode';
import { run } from './cli';
import { placeOf } from './failure';

// isConfig reports whether a file is a configuration of mirrord's, by its name.
export function isConfig(file: string): boolean {
	return /\.(json|ya?ml|toml)$/.test(file) && (/mirrord\.(json|ya?ml|toml)$/.test(file) || path.basename(path.dirname(file)).endsWith('.mirrord'));
}

export class Diagnostics {
	private readonly all = vscode.languages.createDiagnosticCollection('mirrord');

	constructor(private readonly program: () => Promise<string>) {}

	// check asks the program about a file as it is on the disk.
	async check(doc: vscode.TextDocument): Promise<void> {
		const file = doc.uri.fsPath;
		if (doc.uri.scheme !== 'file' || !isConfig(file)) {
			return;
		}
		try {
			const verified = JSON.parse(await run(await this.program(), ['verify-config', '--json', '--ide', file], { cwd: path.dirname(file), codes: [2] }));
			const of = (texts: string[] | undefined, severity: vscode.DiagnosticSeverity): vscode.Diagnostic[] => (texts ?? []).map(text => {
				const at = placeOf(text);
				const begin = at && path.resolve(path.dirname(file), at.file) === file ? new vscode.Position(at.line - 1, at.column - 1) : new vscode.Position(0, 0);
				const word = doc.getWordRangeAtPosition(begin) ?? new vscode.Range(begin, doc.lineAt(Math.min(begin.line, doc.lineCount - 1)).range.end);
				const d = new vscode.Diagnostic(word, at?.text ?? text, severity);
				d.source = 'mirrord';
				return d;
			});
			this.all.set(doc.uri, [...of(verified.errors, vscode.DiagnosticSeverity.Error), ...of(verified.warnings, vscode.DiagnosticSeverity.Warning)]);
		} catch {
			this.all.delete(doc.uri); // without the program nobody knows; a launch says so
		}
	}

	forget(doc: vscode.TextDocument): void {
		this.all.delete(doc.uri);
	}

	dispose(): void {
		this.all.dispose();
	}
}
