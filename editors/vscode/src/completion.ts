// Completion and hover for configurations in YAML and TOML.

import * as fs from 'node:fs/promises';
import * as vscode from 'vscode';
import { Format, meaning, placeAt, Schema, words } from './keys';

const files: vscode.DocumentSelector = ['**/*mirrord.{yaml,yml,toml}', '**/*.mirrord/*.{yaml,yml,toml}'].map(pattern => ({ scheme: 'file', pattern }));

export class Completion implements vscode.CompletionItemProvider, vscode.HoverProvider {
	private schema: Promise<Schema> | undefined;

	constructor(private readonly file: string) {}

	register(): vscode.Disposable {
		return vscode.Disposable.from(vscode.languages.registerCompletionItemProvider(files, this, ' ', '.'), vscode.languages.registerHoverProvider(files, this));
	}

	async provideCompletionItems(doc: vscode.TextDocument, at: vscode.Position): Promise<vscode.CompletionItem[]> {
		if (isOthers(doc)) {
			return [];
		}
		const format = formatOf(doc);
		const schema = await this.read();
		return words(schema, placeAt(linesOf(doc), at.line, at.character, format), format).map(w => {
			const item = new vscode.CompletionItem(w.text, vscode.CompletionItemKind.Property);
			item.insertText = w.insert;
			item.documentation = new vscode.MarkdownString(w.description);
			item.tags = w.deprecated ? [vscode.CompletionItemTag.Deprecated] : [];
			return item;
		});
	}

	async provideHover(doc: vscode.TextDocument, at: vscode.Position): Promise<vscode.Hover | undefined> {
		if (isOthers(doc)) {
			return undefined;
		}
		const text = meaning(await this.read(), linesOf(doc), at.line, at.character, formatOf(doc));
		return text === '' ? undefined : new vscode.Hover(new vscode.MarkdownString(text));
	}

	private read(): Promise<Schema> {
		return this.schema ??= fs.readFile(this.file, 'utf8').then(JSON.parse);
	}
}

function formatOf(doc: vscode.TextDocument): Format {
	return doc.uri.path.endsWith('.toml') ? 'toml' : 'yaml';
}

function linesOf(doc: vscode.TextDocument): string[] {
	return doc.getText().split('\n');
}

// isOthers reports whether another extension explains the document: that for YAML takes the
// schema of yamlValidation.
function isOthers(doc: vscode.TextDocument): boolean {
	return doc.languageId === 'yaml' && vscode.extensions.getExtension('redhat.vscode-yaml') !== undefined;
}
