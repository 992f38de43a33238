// Prints what a package of the extension needs beside its files: the manifest that VS Code
// and Open VSX read, from package.json. manifest.mjs [PLATFORM]
import { readFileSync } from 'node:fs';

const p = JSON.parse(readFileSync(new URL('package.json', import.meta.url), 'utf8'));
const x = text => text.replace(/[&<>"]/g, c => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]);
const version = process.env.VERSION ?? p.version;
const platform = process.argv[2] ? ` TargetPlatform="${x(process.argv[2])}"` : '';
console.log(`<?xml version="1.0" encoding="utf-8"?>
<PackageManifest Version="2.0.0" xmlns="http://schemas.microsoft.com/developer/vsx-schema/2011" xmlns:d="http://schemas.microsoft.com/developer/vsx-schema-design/2011">
	<Metadata>
		<Identity Language="en-US" Id="${x(p.name)}" Version="${x(version)}" Publisher="${x(p.publisher)}"${platform}/>
		<DisplayName>${x(p.displayName)}</DisplayName>
		<Description xml:space="preserve">${x(p.description)}</Description>
		<Tags>${x(p.keywords.join(','))}</Tags>
		<Categories>${x(p.categories.join(','))}</Categories>
		<GalleryFlags>Public</GalleryFlags>
		<Properties>
			<Property Id="Microsoft.VisualStudio.Code.Engine" Value="${x(p.engines.vscode)}"/>
			<Property Id="Microsoft.VisualStudio.Code.ExtensionDependencies" Value=""/>
			<Property Id="Microsoft.VisualStudio.Code.ExtensionPack" Value=""/>
			<Property Id="Microsoft.VisualStudio.Code.ExtensionKind" Value="${x(p.extensionKind.join(','))}"/>
			<Property Id="Microsoft.VisualStudio.Code.LocalizedLanguages" Value=""/>
			<Property Id="Microsoft.VisualStudio.Services.Links.Source" Value="${x(p.repository.url)}"/>
		</Properties>
		<License>extension/LICENSE.txt</License>
	</Metadata>
	<Installation>
		<InstallationTarget Id="Microsoft.VisualStudio.Code"/>
	</Installation>
	<Dependencies/>
	<Assets>
		<Asset Type="Microsoft.VisualStudio.Code.Manifest" Path="extension/package.json" Addressable="true"/>
		<Asset Type="Microsoft.VisualStudio.Services.Content.Details" Path="extension/README.md" Addressable="true"/>
		<Asset Type="Microsoft.VisualStudio.Services.Content.Changelog" Path="extension/CHANGELOG.md" Addressable="true"/>
		<Asset Type="Microsoft.VisualStudio.Services.Content.License" Path="extension/LICENSE.txt" Addressable="true"/>
	</Assets>
</PackageManifest>`);
